"""Rings against a naive twin, and actors killed at every step of the protocol."""

import collections
import os
import random
import time

import numpy as np
import pytest

from impala_mp import nest, specs
from impala_mp.transport import trajectory_ring
from tests.support import forks

_NUM_SLOTS = 3


def _slot_spec():
    environment = specs.EnvironmentSpec(
        specs.array_spec((20, 20), np.uint8), specs.DiscreteSpec(3), 1
    )
    state = (specs.array_spec((5,), np.float32),)
    output = specs.actor_critic_output(environment.action, 3)
    return specs.trajectory_spec(
        environment, output, state, unroll_length=4, batch_size=2
    )


def _make(num_actors=1):
    rings = trajectory_ring.TrajectoryRings(_slot_spec(), num_actors, _NUM_SLOTS)
    return rings, rings.ring(0)


def _payload(slot):
    return [leaf for leaf in nest.flatten(slot._replace(header=()))]


def _fill(slot, value, between=lambda: None):
    for leaf in _payload(slot):
        leaf[...] = value % 100
        between()


def _check(slot, sequence):
    """The slot is the one that was announced, whole."""
    assert (slot.header.sequence == sequence).all()
    for leaf in _payload(slot):
        assert (leaf == sequence % 100).all()


def _produce(ring, incarnation, barrier=None, between=lambda: None):
    """What an actor does, for ever; every value derives from the sequence number."""
    if barrier:
        ring._barrier = barrier
    while True:
        if ring.wait_for_space(0.05):
            _fill(ring.slots[ring.open_index()], ring.head, between)
            ring.commit(0, incarnation)


def _consume_until(ring, expected, count):
    """Takes `count` slots with a deadline; returns the next sequence expected."""
    deadline = time.monotonic() + 30.0
    target = expected + count
    while expected < target:
        assert time.monotonic() < deadline
        ring._learner_doorbell.wait(0.05)
        available = ring.num_committed()
        for offset in range(available):
            _check(ring.peek(offset), expected)
            expected += 1
        if available:
            ring.release(available)
    return expected


def test_random_operations_against_a_naive_twin():
    _, ring = _make()
    rng, twin, sequence = random.Random(0), collections.deque(), 0
    for _ in range(5000):
        assert ring.has_space() == (len(twin) < _NUM_SLOTS)
        assert ring.num_committed() == len(twin)
        if rng.random() < 0.5 and ring.has_space():
            _fill(ring.slots[ring.open_index()], sequence)
            ring.commit(actor=4, incarnation=2)
            twin.append(sequence)
            sequence += 1
        elif twin:
            count = rng.randint(1, len(twin))
            for offset in range(count):
                slot = ring.peek(offset)
                _check(slot, twin[offset])
                assert (slot.header.actor == 4).all()
                assert (slot.header.incarnation == 2).all()
            ring.release(count)
            for _ in range(count):
                twin.popleft()
    assert sequence > 1000


def _dying(steps):
    """A callable that kills its process the `steps`-th time."""
    left = iter(range(steps))

    def maybe():
        if next(left, None) is None:
            forks.die()

    return maybe


def _kill_and_go_on(num_deaths):
    rings, ring = _make()
    rng, expected = random.Random(1), 0
    for death in range(num_deaths):
        kind = death % 3
        if kind == 0:  # anywhere
            arguments = (ring, death)
        elif kind == 1:  # between filling and announcing
            arguments = (ring, death, _dying(rng.randint(0, 4)))
        else:  # in a half-filled slot
            arguments = (ring, death, None, _dying(rng.randint(0, 60)))
        with forks.child(_produce, *arguments) as pid:
            if kind == 0:
                expected = _consume_until(ring, expected, rng.randint(0, 4))
                time.sleep(rng.uniform(0.0, 0.002))
            else:
                deadline = time.monotonic() + 30.0
                while not os.waitpid(pid, os.WNOHANG)[0]:
                    assert time.monotonic() < deadline
                    expected = _consume_until(ring, expected, ring.num_committed())
        expected = _consume_until(ring, expected, ring.num_committed())
        assert expected == ring.head == ring.tail
    assert expected > num_deaths
    rings.close()


@pytest.mark.integration
def test_a_kill_of_either_side_loses_repeats_and_tears_nothing():
    _kill_and_go_on(100)


@pytest.mark.slow
def test_nothing_is_lost_twice_or_torn_in_thousands_of_kills():
    _kill_and_go_on(3000)


def test_the_test_sees_an_announcement_that_comes_too_early():
    _, ring = _make()

    def early():
        ring.commit(0, 0)
        time.sleep(3600.0)  # and fills the slot after that

    ring._words[trajectory_ring._HEAD] = ring._words[trajectory_ring._TAIL] = 3
    with forks.child(early):
        deadline = time.monotonic() + 30.0
        while not ring.num_committed():
            assert time.monotonic() < deadline
            ring._learner_doorbell.wait(0.05)
        slot = ring.peek(0)
        with pytest.raises(AssertionError):
            _check(slot, 3)


def test_a_slot_that_was_not_announced_is_an_error():
    _, ring = _make()
    ring.commit(0, 0)
    ring.slots[0].header.sequence[:] = 17
    with pytest.raises(RuntimeError, match="slot 17 of actor 0 is where slot 0"):
        ring.peek(0)


def test_an_actor_waits_for_space_and_is_woken():
    _, ring = _make()
    for _ in range(_NUM_SLOTS):
        ring.commit(0, 0)
    assert not ring.wait_for_space(0.01)

    def release():
        time.sleep(0.05)
        ring.release(1)

    start = time.monotonic()
    with forks.child(release):
        assert ring.wait_for_space(20.0)
    assert time.monotonic() - start < 10.0  # the doorbell, not the timeout


def test_rings_leave_nothing_behind():
    before = set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    rings, _ = _make(num_actors=5)
    assert len(os.listdir("/proc/self/fd")) > before[1]
    rings.close()
    del rings
    assert set(os.listdir("/dev/shm")) == before[0]
    # The mapping goes when the last array does.
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 1
