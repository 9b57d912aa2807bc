"""Checkpoints: whole or not at all, verified, and never code."""

import os
import pathlib
import pickle
import random
import time

import pytest
import torch

from impala_mp import checkpoint
from tests import forks


def _state(value):
    return {"tensor": torch.full((1000,), float(value)), "value": value}


def _load(folder):
    sentences = []
    state = checkpoint.load_newest(str(folder), sentences.append)
    return state, sentences


def test_round_trip_and_pruning(tmp_path):
    assert _load(tmp_path) == (None, [])
    for update in range(1, 8):
        checkpoint.save(str(tmp_path), update, _state(update), keep=update % 3 == 0)
        checkpoint.prune(str(tmp_path), keep_last=2)
    assert sorted(os.listdir(tmp_path)) == ["3", "6", "7"]
    state, sentences = _load(tmp_path)
    assert state["value"] == 7
    assert torch.equal(state["tensor"], torch.full((1000,), 7.0))
    assert sentences == []


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [_truncate, _flip, pathlib.Path.unlink], ids=lambda f: f.__name__
)
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path, damage):
    for update in (1, 2):
        checkpoint.save(str(tmp_path), update, _state(update))
    damage(tmp_path / "2" / "state.pt")
    state, sentences = _load(tmp_path)
    assert state["value"] == 1
    assert "Going on from the one before" in sentences[0]
    checkpoint.save(str(tmp_path), 2, _state(2))  # mends it
    assert _load(tmp_path)[0]["value"] == 2


@pytest.mark.parametrize("keep_last", [1, 2])
def test_damaged_ones_are_not_among_those_that_are_kept(tmp_path, keep_last):
    """A learner goes on from before them, and what it saves is older by its number."""
    for update in (3, 5, 8, 9):
        checkpoint.save(str(tmp_path), update, _state(update))
    for update in (8, 9):
        _flip(tmp_path / str(update) / "state.pt")
    checkpoint.save(str(tmp_path), 6, _state(6))
    checkpoint.prune(str(tmp_path), keep_last, sound=[6])
    kept = {1: ["6", "8", "9"], 2: ["5", "6", "8", "9"]}[keep_last]
    assert sorted(os.listdir(tmp_path)) == kept
    assert _load(tmp_path)[0]["value"] == 6
    for update in (10, 11):
        checkpoint.save(str(tmp_path), update, _state(update))
        checkpoint.prune(str(tmp_path), keep_last, sound=[update])
    kept = {1: ["11"], 2: ["10", "11"]}[keep_last]
    assert sorted(os.listdir(tmp_path)) == kept


def test_when_none_is_sound_it_says_so(tmp_path):
    checkpoint.save(str(tmp_path), 1, _state(1))
    (tmp_path / "1" / "SHA256").unlink()
    with pytest.raises(checkpoint.Damaged, match="none of the 1 checkpoints"):
        _load(tmp_path)


class _Code:
    def __reduce__(self):
        return os.abort, ()


def test_loading_runs_no_code(tmp_path):
    checkpoint.save(str(tmp_path), 1, {"code": _Code()})
    with pytest.raises(pickle.UnpicklingError):
        _load(tmp_path)


def test_another_format_is_refused(tmp_path, monkeypatch):
    checkpoint.save(str(tmp_path), 1, _state(1))
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    with pytest.raises(checkpoint.Damaged, match="has format 1"):
        checkpoint.load(str(tmp_path / "1"))


def _save_for_ever(folder, start):
    update = start
    while True:
        update += 1
        checkpoint.save(folder, update, _state(update))
        checkpoint.prune(folder, keep_last=2)


def test_a_writer_killed_anywhere_leaves_a_sound_checkpoint(tmp_path):
    checkpoint.save(str(tmp_path), 1, _state(1))
    rng, newest, rounds = random.Random(0), 1, 0
    deadline = time.monotonic() + 60.0
    while newest <= 20 or rounds < 40:
        assert time.monotonic() < deadline
        rounds += 1
        with forks.child(_save_for_ever, str(tmp_path), newest):
            time.sleep(rng.uniform(0.0, 0.03) * (1.0 + rounds / 20.0))
        state, sentences = _load(tmp_path)
        assert sentences == []
        assert torch.equal(state["tensor"], torch.full((1000,), float(state["value"])))
        assert state["value"] >= newest
        newest = state["value"]
    checkpoint.prune(str(tmp_path), keep_last=2)
    assert all(name.isdigit() for name in os.listdir(tmp_path))
