"""Crash files, and files that are none."""

import errno
import os

import pytest

from impala_mp import errors
from impala_mp.storage import crash_file


def test_something_else_is_refused(tmp_path):
    (tmp_path / "other.pt").write_bytes(b"nothing")
    with pytest.raises(errors.BadInput, match="no crash file"):
        crash_file.load(str(tmp_path / "other.pt"))


def test_a_full_disk_leaves_no_part_of_one(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    nothing = dict.fromkeys(crash_file.CrashFile._fields)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        crash_file.save(str(tmp_path), crash_file.CrashFile(**nothing | {"update": 7}))
    assert os.listdir(tmp_path) == []
