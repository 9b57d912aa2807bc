"""Checkpoints: whole or not at all, verified, and never code."""

import errno
import hashlib
import io
import itertools
import os
import pathlib
import random
import time
import tracemalloc

import pytest
import torch

from impala_mp.storage import checkpoint
from tests.support import forks


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
    assert sentences[1:] == ["Resuming from the previous checkpoint."]
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


def test_without_a_sound_checkpoint_the_error_gives_the_cause(tmp_path):
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


def test_files_of_other_programs_are_ignored(tmp_path):
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


def test_a_sound_one_is_left_as_it_is_or_replaced_on_demand(tmp_path):
    for value, replace, there in ((1, False, 1), (2, False, 1), (3, True, 3)):
        checkpoint.save(str(tmp_path), 7, _state(value), replace=replace)
        assert _load(tmp_path)[0]["value"] == there
    checkpoint.save(str(tmp_path), 7, _state(4), keep=True, replace=True)
    assert sorted(os.listdir(tmp_path)) == ["7"]
    checkpoint.save(str(tmp_path), 8, _state(5))
    checkpoint.prune(str(tmp_path), keep_last=1)
    assert sorted(os.listdir(tmp_path)) == ["7", "8"]


@pytest.fixture
def large(monkeypatch):
    """A state of many pieces, and what counts beats."""
    monkeypatch.setattr(checkpoint, "_PIECE_BYTES", 2**16)
    beats = []
    state = {"tensor": torch.arange(2**20), "value": 1}  # 8 MiB
    return state, beats, lambda: beats.append(time.monotonic())


def test_a_large_one_is_written_and_read_with_heartbeats(tmp_path, large):
    state, beats, beat = large
    checkpoint.save(str(tmp_path), 1, state, beat=beat)
    assert len(beats) >= 128
    beats.clear()
    checkpoint.load_newest(str(tmp_path), print, beat)
    assert len(beats) >= 128


def test_a_large_one_is_written_and_read_without_a_copy(tmp_path, large):
    state, _, _ = large
    tracemalloc.start()
    try:
        checkpoint.save(str(tmp_path), 1, state)
        loaded, _ = _load(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**22
    with open("/proc/self/maps") as maps:
        assert str(tmp_path / "1" / "state.pt") in maps.read()
    assert torch.equal(loaded["tensor"], state["tensor"])


@pytest.mark.parametrize("failing", [0, 3, 130])
def test_a_disk_that_fills_up_leaves_the_one_before(
    tmp_path, large, monkeypatch, failing
):
    state, _, _ = large
    checkpoint.save(str(tmp_path), 1, _state(1))
    calls, sync = itertools.count(), os.fsync

    def fill_up(fd):
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fill_up)
    for update, replace in ((2, False), (1, True)):
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(str(tmp_path), update, state, replace=replace)
        assert os.listdir(tmp_path) == ["1"]
        assert _load(tmp_path)[0]["tensor"].shape == (1000,)
        calls = itertools.count()


def test_a_reader_finds_what_a_live_run_writes_meanwhile(tmp_path, monkeypatch):
    checkpoint.save(str(tmp_path), 100, _state(100))
    digest = checkpoint._digest

    def overtaken(name, beat):
        if "/100/" in name:
            checkpoint.save(str(tmp_path), 200, _state(200))
            checkpoint.prune(str(tmp_path), keep_last=1, sound=(200,))
        return digest(name, beat)

    monkeypatch.setattr(checkpoint, "_digest", overtaken)
    state, sentences = _load(tmp_path)
    assert (state["value"], sentences) == (200, [])


def _save_for_ever(folder, start):
    update = start
    while True:
        update += 1
        checkpoint.save(folder, update, _state(update))
        checkpoint.prune(folder, keep_last=2)


def _replace_for_ever(folder, start):
    for value in itertools.count(start + 1):
        checkpoint.save(folder, 1, _state(value), replace=True)


@pytest.mark.integration
@pytest.mark.parametrize("write_for_ever", [_save_for_ever, _replace_for_ever])
def test_a_writer_killed_anywhere_leaves_a_sound_one(tmp_path, write_for_ever):
    checkpoint.save(str(tmp_path), 1, _state(1))
    rng, newest, rounds = random.Random(0), 1, 0
    deadline = time.monotonic() + 300.0
    while newest <= 20 or rounds < 40:
        assert time.monotonic() < deadline
        rounds += 1
        with forks.child(write_for_ever, str(tmp_path), newest):
            time.sleep(rng.uniform(0.0, 0.03) * (1.0 + rounds / 20.0))
        state, sentences = _load(tmp_path)
        assert sentences == []
        assert torch.equal(state["tensor"], torch.full((1000,), float(state["value"])))
        assert state["value"] >= newest
        newest = state["value"]
    checkpoint.prune(str(tmp_path), keep_last=2)
    assert all(name.isdigit() for name in os.listdir(tmp_path))


def test_a_checkpoint_that_cannot_be_removed_stays(tmp_path, monkeypatch, capsys):
    folder, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    for update in (1, 2, 3, 4, 5):
        checkpoint.save(str(folder), update, _state(update))
    os.rename(folder / "1", elsewhere)
    os.symlink(elsewhere, folder / "1")
    remove = checkpoint.shutil.rmtree

    def immutable(path, **kwargs):
        if path.endswith("/2"):
            raise PermissionError(1, "Operation not permitted", path)
        remove(path, **kwargs)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", immutable)
    for _ in range(2):
        checkpoint.prune(str(folder), keep_last=2)
    assert sorted(os.listdir(folder)) == ["2", "4", "5"]
    assert sorted(os.listdir(elsewhere)) == ["SHA256", "state.pt"]
    assert capsys.readouterr().err.count("/2 cannot be removed") == 1
