"""Rings of slots: actor i writes ring i, the learner reads all of them.

`head` counts the slots that the actor has committed, `tail` those that the learner has
released. Both only grow, each has one writer, and each is written after what it
announces. A killed actor leaves a half-filled slot that was never announced. Its next
incarnation starts over at `head`. Nothing has to be reclaimed.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from impala_mp import nest, specs, types
from impala_mp.transport import barrier, doorbell, shared_memory

_HEAD, _TAIL, _WORDS = 0, 8, 16  # int64 words: head and tail on cache lines apart


class RingSpec(NamedTuple):
    """Layout of the rings of all actors."""

    words: specs.ArraySpec  # int64 [N, 16]
    slots: types.Trajectory  # [N, K, ...] a leaf


def ring_spec(slot: types.Trajectory, num_actors: int, num_slots: int) -> RingSpec:
    """Returns the layout of N rings of K slots."""

    def stack(spec: specs.ArraySpec) -> specs.ArraySpec:
        return specs.array_spec((num_actors, num_slots, *spec.shape), spec.dtype)

    words = specs.array_spec((num_actors, _WORDS), np.int64)
    return RingSpec(words, nest.map_structure(stack, slot))


class TrajectoryRing:
    """Ring of one actor, with the methods of the actor and of the learner."""

    def __init__(
        self,
        words: np.ndarray,
        slots: types.Trajectory,
        actor_doorbell: doorbell.Doorbell,
        learner_doorbell: doorbell.Doorbell,
    ) -> None:
        self._words = words.data.cast("B").cast("q")
        self.num_slots = slots.header.actor.shape[0]
        self.slots = [
            nest.map_structure(lambda leaf, k=k: leaf[k], slots)
            for k in range(self.num_slots)
        ]
        self._actor_doorbell = actor_doorbell
        self._learner_doorbell = learner_doorbell
        self._barrier = barrier.make_barrier()

    @property
    def head(self) -> int:
        return self._words[_HEAD]

    @property
    def tail(self) -> int:
        return self._words[_TAIL]

    # The actor's side.

    def has_space(self) -> bool:
        return self.head - self.tail < self.num_slots

    def wait_for_space(self, timeout_secs: float) -> bool:
        """Waits at most `timeout_secs`; returns whether a slot is free."""
        if self.has_space():
            return True
        self._actor_doorbell.wait(timeout_secs)
        return self.has_space()

    def open_index(self) -> int:
        """Returns the slot that the actor fills. One must be free."""
        return self.head % self.num_slots

    def wait_to_be_woken(self, timeout_secs: float) -> None:
        """Waits at most `timeout_secs` for the actor's doorbell."""
        self._actor_doorbell.wait(timeout_secs)

    def wake_actor(self) -> None:
        self._actor_doorbell.ring()

    def commit(
        self, actor: int, incarnation: int, has_numbers: bool = False, unroll: int = 0
    ) -> None:
        """Fills the header of the slot at `open_index` and announces the slot."""
        head = self.head
        header = self.slots[head % self.num_slots].header
        header.actor[:] = actor
        header.incarnation[:] = incarnation
        header.sequence[:] = head
        header.committed_ns[:] = time.monotonic_ns()
        header.has_numbers[:] = has_numbers
        header.column[:] = np.arange(len(header.column))
        header.unroll[:] = unroll
        self._barrier()
        self._words[_HEAD] = head + 1
        self._learner_doorbell.ring()

    # The learner's side.

    def num_committed(self) -> int:
        """Returns the number of slots that can be read."""
        return self.head - self.tail

    def peek(self, offset: int) -> types.Trajectory:
        """Returns the committed slot `offset` after the oldest.

        Raises:
          RuntimeError: the slot is not the one that was announced.
        """
        self._barrier()
        sequence = self.tail + offset
        slot = self.slots[sequence % self.num_slots]
        if slot.header.sequence[0] != sequence:
            raise RuntimeError(
                f"slot {slot.header.sequence[0]} of actor {slot.header.actor[0]} is"
                f" where slot {sequence} was announced"
            )
        return slot

    def release(self, count: int) -> None:
        """Returns the oldest `count` slots to the actor; no reader may use them now."""
        self._barrier()
        self._words[_TAIL] = self.tail + count
        self._actor_doorbell.ring()


class TrajectoryRings:
    """Memory and doorbells of all rings. Picklable to a child."""

    def __init__(
        self,
        slot: types.Trajectory,
        num_actors: int,
        num_slots: int,
        ranks: Sequence[int] = (),
    ) -> None:
        """`ranks` are those that read the rings, by actor; none named: a single one."""
        spec = ring_spec(slot, num_actors, num_slots)
        self.memory = shared_memory.SharedArrays(spec)
        self._ranks = tuple(ranks) or (0,) * num_actors
        self.learner_doorbells = [
            doorbell.Doorbell() for _ in range(1 + max(self._ranks))
        ]
        self.actor_doorbells = [doorbell.Doorbell() for _ in range(num_actors)]

    def ring(self, actor: int) -> TrajectoryRing:
        arrays = self.memory.arrays
        return TrajectoryRing(
            arrays.words[actor],
            nest.map_structure(lambda leaf: leaf[actor], arrays.slots),
            self.actor_doorbells[actor],
            self.learner_doorbells[self._ranks[actor]],
        )

    def heads(self) -> np.ndarray:
        """Returns the number of slots ever committed: int64 [N]."""
        return self.memory.arrays.words[:, _HEAD].copy()

    def tails(self) -> np.ndarray:
        """Returns the number of slots ever released: int64 [N]."""
        return self.memory.arrays.words[:, _TAIL].copy()

    def wake_all(self) -> None:
        """Wakes all waiting processes, so that they read the control block."""
        for bell in (*self.learner_doorbells, *self.actor_doorbells):
            bell.ring()

    def close(self) -> None:
        self.memory.close()
        for bell in (*self.learner_doorbells, *self.actor_doorbells):
            bell.close()
