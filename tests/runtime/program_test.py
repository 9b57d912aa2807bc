"""One training and its refusals, in this process."""

import errno
import os
import resource

import pytest

from impala_mp import errors
from impala_mp.runtime import program
from tests.support import builders


def _everything(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_refused_run_leaves_the_folder_of_another_as_it_was(tmp_path):
    path = tmp_path / "run"
    program.train(builders.short_training(), str(path))
    for state in path.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"")
    before = _everything(path)
    with pytest.raises(errors.BadInput, match="none of the"):
        program.train(builders.short_training(total_agent_steps=600), str(path))
    assert _everything(path) == before


def test_memory_that_cannot_be_had_is_found_before_a_folder_is_made(
    tmp_path, monkeypatch
):
    def refuse(fd, offset, size):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(errors.BadInput, match="MiB are available: lower"):
        program.train(builders.short_training(), str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_too_few_descriptors_are_found_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (40, 40))
    config = builders.short_training(
        **{"runtime.mode": "processes", "actors.count": 40}
    )
    with pytest.raises(errors.BadInput, match="or lower config.actors.count"):
        program.train(config, str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
