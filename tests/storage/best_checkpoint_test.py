"""The best checkpoint: replaced by better ones only, and never half-written."""

import errno

import pytest
import torch

from impala_mp.storage import best_checkpoint, checkpoint, files


def _save(best, value):
    best.save({"w": torch.full((3,), value)}, int(value), int(10 * value), value)


def test_it_survives_as_it_is(tmp_path):
    best = best_checkpoint.BestCheckpoint(str(tmp_path))
    assert best.is_better(-1e9)
    _save(best, 2.0)
    again = best_checkpoint.BestCheckpoint(str(tmp_path))
    assert (again.mean, again.updates) == (2.0, 2)
    assert not again.is_better(2.0)
    assert again.is_better(2.5)
    _save(again, 3.0)
    state = checkpoint.load(str(tmp_path / "best"))
    assert state["learner"]["parameters"]["w"].tolist() == [3.0] * 3
    assert state["learner"]["agent_steps"] == 30


def test_it_is_no_checkpoint_to_resume_from(tmp_path):
    _save(best_checkpoint.BestCheckpoint(str(tmp_path)), 2.0)
    assert files.updates(str(tmp_path)) == []
    assert checkpoint.load_newest(str(tmp_path), print) is None
    checkpoint.save(str(tmp_path), 7, {"a": 1})
    checkpoint.prune(str(tmp_path), keep_last=1)
    assert (tmp_path / "best").exists()


def test_prune_leaves_one_that_is_being_written(tmp_path):
    (tmp_path / ".writing-best-0123").mkdir()
    (tmp_path / ".writing-12-0123").mkdir()
    checkpoint.prune(str(tmp_path), keep_last=1)
    assert [p.name for p in tmp_path.iterdir()] == [".writing-best-0123"]
    best_checkpoint.BestCheckpoint(str(tmp_path))  # the next owner
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_one_is_replaced(tmp_path):
    _save(best_checkpoint.BestCheckpoint(str(tmp_path)), 2.0)
    with open(tmp_path / "best" / "state.pt", "r+b") as file:
        file.write(b"rubbish")
    best = best_checkpoint.BestCheckpoint(str(tmp_path))
    assert best.is_better(1.0)
    _save(best, 1.0)
    assert best_checkpoint.BestCheckpoint(str(tmp_path)).mean == 1.0


def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    best = best_checkpoint.BestCheckpoint(str(tmp_path))
    _save(best, 2.0)

    def full(*unused, **others):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.files, "create", full)
    with pytest.raises(OSError, match="No space"):
        _save(best, 3.0)
    assert best.mean == 2.0
    assert best_checkpoint.BestCheckpoint(str(tmp_path)).mean == 2.0
