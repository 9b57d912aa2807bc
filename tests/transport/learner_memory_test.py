"""A learner's state that outlives its writer, which is killed at every step."""

import random
import time

import numpy as np
import pytest

from impala_mp.transport import learner_memory
from tests.support import forks

_PIECES = (64, 0, 8, 4_000_000, 40)  # bytes


def _state(version, seed=0):
    """Pieces whose every word depends on the version."""
    rng = np.random.default_rng([version, seed])
    return [rng.integers(256, size=size, dtype=np.uint8) for size in _PIECES]


def _made(cls=learner_memory.LearnerMemory):
    return cls(sum(_PIECES))


def _is(version, data):
    return np.array_equal(data, np.concatenate(_state(version)))


def _write_and_die(memory, step):
    """Ends this process at a step of a write: at a barrier, or before a piece."""
    made = iter(range(1, 100))

    def tick():
        if next(made) == step:
            forks.die()

    def pieces():
        for piece in _state(memory.latest + 1):
            tick()
            yield piece

    memory._barrier = tick
    memory.write(pieces())


def _write_for_ever(memory):
    while True:
        memory.write(_state(memory.latest + 1))


_NUM_STEPS = 3 + len(_PIECES)


def _survives(memory):
    """Returns whether the newest version is whole after a death at every step."""
    memory.write(_state(1))
    for step in range(1, _NUM_STEPS + 1):
        before = memory.latest
        with forks.child(_write_and_die, memory, step) as pid:
            assert forks.wait(pid) == 9
        if memory.latest != before or not _is(before, memory.read()):
            return False
    with forks.child(_write_and_die, memory, _NUM_STEPS + 1) as pid:
        assert forks.wait(pid) == 0  # there are no more steps
    return memory.latest == before + 1 and _is(before + 1, memory.read())


def test_a_writer_killed_at_any_step_leaves_a_whole_version():
    assert _survives(_made())


class _OneBuffer(learner_memory.LearnerMemory):
    """The broken copy: the version in use is written over, and nothing checks it."""

    def _attach(self, memory):
        super()._attach(memory)
        self._buffers = [self._buffers[0]] * 2

    def read(self):
        return self._buffers[0][: self._words[8 * (1 + self.latest % 2) + 1]]


class _Announced(learner_memory.LearnerMemory):
    """The broken copy: the version is announced before it is there."""

    def _fill(self, buffer, pieces):
        self._words[0] += 1
        return super()._fill(buffer, pieces)


@pytest.mark.parametrize("broken", [_OneBuffer, _Announced])
def test_the_test_sees_a_memory_that_tears(broken):
    assert not _survives(_made(broken))


@pytest.mark.integration
def test_a_writer_killed_at_any_time_leaves_a_whole_version():
    memory, rng = _made(), random.Random(0)
    memory.write(_state(1))
    for _ in range(30):
        before = memory.latest
        with forks.child(_write_for_ever, memory):
            deadline = time.monotonic() + 60.0
            while memory.latest < before + 1 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.03))
        assert memory.latest > before
        assert _is(memory.latest, memory.read())


def test_a_changed_byte_is_found_anywhere():
    memory = _made()
    memory.write(_state(1))
    length = sum(_PIECES)
    for place in (0, 63, 64, 71, 4_000_000, length - 1):
        for bit in (0, 7):
            memory._buffers[1][place] ^= 1 << bit
            with pytest.raises(learner_memory.NotWhole, match="checksum of version 1"):
                memory.read()
            memory._buffers[1][place] ^= 1 << bit
    assert _is(1, memory.read())


@pytest.mark.parametrize("word", ["_VERSION", "_LENGTH"])
def test_a_changed_word_is_found(word):
    memory = _made()
    memory.write(_state(1))
    memory._words[8 * 2 + getattr(learner_memory, word)] = 2**40
    with pytest.raises(learner_memory.NotWhole, match="words of version 1"):
        memory.read()


def test_versions_are_counted_and_may_shrink_and_be_discarded():
    memory = _made()
    assert memory.read() is None
    assert [memory.write(_state(v)) for v in (1, 2, 3)] == [1, 2, 3]
    assert _is(3, memory.read())
    memory.write([np.full(9, 7, np.uint8)])
    assert memory.read().tolist() == 9 * [7] + 7 * [0]  # whole words
    assert memory.num_reads == 1
    memory.read()
    assert memory.num_reads == 2
    memory.discard()
    assert memory.read() is None
    memory.write(_state(1))
    assert memory.num_reads == 0
    assert _is(1, memory.read())


def test_a_state_that_is_too_long_leaves_the_version_before():
    memory = _made()
    memory.write(_state(1))
    with pytest.raises(ValueError, match="more than 4000112 bytes"):
        memory.write([*_state(2), np.zeros(1, np.uint8)])
    assert _is(1, memory.read())
    assert learner_memory.LearnerMemory(0).num_bytes == 0
