"""Updates that are skipped, one by one and too many in a row."""

import collections

import numpy as np
import pytest
import torch

from impala_mp import errors
from impala_mp.storage import checkpoint
from tests.support import crashes


def test_after_too_many_in_a_row_the_learner_ends(tmp_path):
    limits = {"health.max_skipped_updates": 4, "health.max_crash_files": 2}
    parts = crashes.parts(tmp_path, **limits)
    with torch.no_grad():
        parts.training._learner.agent.network.policy.bias[0] = np.inf
    with pytest.raises(errors.RunFailed, match="4 updates in a row.*diagnose.*/2.pt"):
        crashes.train(parts, 10)
    assert len(crashes.files(tmp_path)) == 2
    assert not (tmp_path / "checkpoints").exists()  # of parameters that are infinite


def test_updates_before_too_many_in_a_row_are_saved(tmp_path):
    parts = crashes.parts(tmp_path, **{"health.max_skipped_updates": 2})
    crashes.train(parts, 3)
    with pytest.raises(errors.RunFailed):
        crashes.train(parts, 10, crashes.spoiled_reward)
    state = checkpoint.load_newest(str(tmp_path / "checkpoints"), print)
    assert state["learner"]["updates"] == 5


def test_good_steps_between_are_no_row(tmp_path):
    parts = crashes.parts(tmp_path, **{"health.max_skipped_updates": 2})
    for _ in range(4):
        crashes.train(parts, 1, crashes.spoiled_reward)
        crashes.train(parts, 1)
    assert len(crashes.files(tmp_path)) == 4


def test_the_last_update_on_a_gpu_is_checked_when_the_run_ends(tmp_path):
    """There the outcome of an update is known after the next one."""
    parts = crashes.parts(tmp_path, **{"health.max_skipped_updates": 1})
    guard = parts.training._guard
    guard._cuda = guard._keeps = True
    copies = ({k: x.clone() for k, x in guard._tensors.items()} for _ in range(2))
    guard._before = collections.deque(copies)
    crashes.train(parts, 2)
    crashes.train(parts, 1, crashes.spoiled_reward)
    assert not (tmp_path / "crashes").exists()
    parts.training.conclude()
    assert len(crashes.files(tmp_path)) == 1
