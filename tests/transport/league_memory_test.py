"""Frozen snapshots: bytes of a version never change, and no read is torn."""

import os
import random
import time

import numpy as np
import pytest

from impala_mp.transport import league_memory
from tests.support import forks

_SIZE = 2**18
_SLOTS = 3
_DEADLINE_SECS = 3600.0  # for what takes its time where others want the cores too


def _pattern(buffer, version):
    buffer.view(np.uint64)[:] = version * 0x9E3779B97F4A7C15 % 2**64


def _is_of(buffer, version):
    expected = np.empty(8, np.uint8)
    _pattern(expected, version)
    return (buffer.view(np.uint64) == expected.view(np.uint64)[0]).all()


def _newest(memory):
    return max((entry.version for entry in memory.entries()), default=0)


def _write_for_ever(memory, first):
    source = np.empty(memory.num_bytes, np.uint8)
    for version in range(first, 10**9):
        _pattern(source, version)
        memory.write(version % memory.num_slots, version, source)


def _read_all(memory, into):
    """Versions that were read whole; asserts that each has its own bytes."""
    found = []
    for entry in memory.entries():
        if memory.read(entry, into):
            assert _is_of(into, entry.version), f"version {entry.version} is torn"
            found.append(entry.version)
    return found


@pytest.mark.integration
def test_a_writer_killed_midway_leaves_only_whole_snapshots():
    """100 times, under a reader at full speed."""
    memory = league_memory.LeagueMemory(_SLOTS, _SIZE)
    into, rng = np.empty(_SIZE, np.uint8), random.Random(0)
    midway, whole = 0, 0
    for death in range(100):
        before = _newest(memory)
        with forks.child(_write_for_ever, memory, before + 1) as pid:
            deadline = time.monotonic() + 60.0
            while _newest(memory) < before + 2 and time.monotonic() < deadline:
                whole += len(_read_all(memory, into))
            time.sleep(rng.uniform(0.0, 0.002))
            forks.kill(pid)
        left = [entry.version for entry in memory.entries()]
        assert _read_all(memory, into) == left  # nothing that is there is broken
        midway += len(left) < _SLOTS
        assert len(left) >= _SLOTS - 1, death
        assert left[-1] >= before + 2
    assert midway > 10
    assert whole > 100


class _Unprotected(league_memory.LeagueMemory):
    """The broken copy: the version is not taken back before the bytes change."""

    def clear(self, slot):
        pass


@pytest.mark.integration
def test_the_test_sees_a_memory_that_tears():
    memory = _Unprotected(1, _SIZE)
    into = np.empty(_SIZE, np.uint8)
    with (
        forks.child(_write_for_ever, memory, 1),
        pytest.raises((AssertionError, RuntimeError), match="is torn"),
    ):
        _read_for_ever(memory, into)


def _read_for_ever(memory, into):
    deadline = time.monotonic() + _DEADLINE_SECS
    while time.monotonic() < deadline:
        _read_all(memory, into)


def _die_at(memory, step, version):
    calls = iter(range(1, 10))

    def barrier():
        if next(calls) == step:
            forks.die()

    memory._barrier = barrier
    source = np.empty(memory.num_bytes, np.uint8)
    _pattern(source, version)
    memory.write(0, version, source)
    os._exit(0)


@pytest.mark.parametrize("step", [1, 2])
def test_a_death_at_a_step_leaves_an_empty_slot(step):
    memory = league_memory.LeagueMemory(2, 64)
    source, into = np.empty(64, np.uint8), np.empty(64, np.uint8)
    for version in (1, 2):
        _pattern(source, version)
        memory.write(version - 1, version, source)
        memory.weigh(version - 1, 0.5)
    with forks.child(_die_at, memory, step, 3) as pid:
        forks.wait(pid)
    assert memory.entries() == [(2, 1, 0.5)]
    assert _read_all(memory, into) == [2]
    _pattern(source, 3)
    memory.write(0, 3, source)  # another writer continues
    assert _read_all(memory, into) == [2, 3]


def test_a_slot_that_was_replaced_is_not_read_as_the_old_version():
    memory = league_memory.LeagueMemory(1, 64)
    source = np.zeros(64, np.uint8)
    memory.write(0, 1, source)
    (entry,) = memory.entries()
    memory.write(0, 2, source)
    assert not memory.read(entry, np.empty(64, np.uint8))
    memory.clear(0)
    assert memory.entries() == []


def test_a_checksum_finds_changed_bytes():
    memory = league_memory.LeagueMemory(1, 64)
    memory.write(0, 1, np.full(64, 7, np.uint8))
    memory._buffers[0, 5] = 8
    with pytest.raises(RuntimeError, match="snapshot 1 of the league is torn"):
        memory.read(memory.entries()[0], np.empty(64, np.uint8))


def test_weights_belong_to_a_version():
    memory = league_memory.LeagueMemory(2, 64)
    memory.write(1, 5, np.zeros(64, np.uint8))
    memory.weigh(1, 0.25)
    assert memory.entries() == [(5, 1, 0.25)]
    memory.write(1, 6, np.zeros(64, np.uint8))
    assert memory.entries() == [(6, 1, 0.0)]


def test_without_a_league_there_is_no_slot():
    memory = league_memory.LeagueMemory(0, 64)
    assert (memory.num_slots, memory.entries()) == (0, [])
