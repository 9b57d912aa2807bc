"""Snapshots of a league: written once, whole or not at all."""

import errno
import os

import pytest
import torch

from impala_mp.storage import snapshot_file


def test_a_snapshot_is_read_and_never_written_again(tmp_path):
    folder = str(tmp_path / "league")
    assert snapshot_file.versions(folder) == []
    snapshot_file.write(folder, 3, {"elo": 1.5, "weight": torch.arange(4)})
    found = snapshot_file.read(folder, 3)
    assert found["elo"] == 1.5
    assert found["weight"].tolist() == [0, 1, 2, 3]
    with pytest.raises(FileExistsError, match="is a snapshot already"):
        snapshot_file.write(folder, 3, {})
    assert os.listdir(folder) == ["3.pt"]


def test_a_full_disk_leaves_no_part_of_one(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            snapshot_file.write(str(tmp_path), 3, {"weight": torch.arange(4)})
    assert os.listdir(tmp_path) == []
    snapshot_file.write(str(tmp_path), 3, {"weight": torch.arange(4)})
    assert snapshot_file.versions(str(tmp_path)) == [3]


def test_anything_else_is_damaged(tmp_path):
    (tmp_path / "3.pt").write_bytes(b"nothing")
    torch.save({"format_version": 99}, tmp_path / "4.pt")
    for version in (3, 4, 5):
        with pytest.raises(snapshot_file.Damaged):
            snapshot_file.read(str(tmp_path), version)
