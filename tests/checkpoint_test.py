"""Checkpoints: whole or not at all, verified, and never code."""

import hashlib
import io
import os
import pathlib
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


def _scramble(path):
    path.write_bytes(b"\xff\x00\xfe" * 30)  # no text in any encoding


@pytest.mark.parametrize("name", ["state.pt", "SHA256"])
@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip, _scramble, pathlib.Path.unlink],
    ids=lambda f: f.__name__,
)
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path, damage, name):
    for update in (1, 2):
        checkpoint.save(str(tmp_path), update, _state(update))
    damage(tmp_path / "2" / name)
    state, sentences = _load(tmp_path)
    assert state["value"] == 1
    assert "2 is " in sentences[0]
    assert sentences[1:] == ["Going on from the one before."]
    checkpoint.save(str(tmp_path), 2, _state(2))  # mends it
    assert _load(tmp_path)[0]["value"] == 2


def test_when_none_is_sound_it_says_so(tmp_path):
    checkpoint.save(str(tmp_path), 1, _state(1))
    (tmp_path / "1" / "SHA256").unlink()
    sentences = []
    with pytest.raises(checkpoint.Damaged, match="none of the 1 .* is incomplete"):
        checkpoint.load_newest(str(tmp_path), sentences.append)
    assert sentences == []  # nothing of going on


def _forge(path, content):
    """A checkpoint of whatever, with the hash that it should have."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    _forge_bytes(path, buffer.getvalue())


def _forge_bytes(path, data):
    path.mkdir()
    (path / "state.pt").write_bytes(data)
    (path / "SHA256").write_text(hashlib.sha256(data).hexdigest())


def test_what_another_program_wrote_is_passed_over(tmp_path):
    checkpoint.save(str(tmp_path), 1, _state(1))
    _forge(tmp_path / "2", _state(2))  # no format
    _forge(tmp_path / "3", [1, 2])
    _forge_bytes(tmp_path / "4", b"")
    _forge_bytes(tmp_path / "5", b"PK\x03\x04 no archive")
    _forge_bytes(tmp_path / "6", b"no pickle")
    state, sentences = _load(tmp_path)
    assert state["value"] == 1
    assert len(sentences) == 6
    for i, word in enumerate(("/6 ", "/5 ", "/4 ", "/3 is a list", "format none")):
        assert word in sentences[i]
        assert "weights_only" not in sentences[i]


class _Code:
    def __reduce__(self):
        return os.abort, ()


def test_loading_runs_no_code(tmp_path):
    checkpoint.save(str(tmp_path), 1, {"code": _Code()})
    with pytest.raises(checkpoint.Damaged, match="cannot be unpickled"):
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
