"""Rings of slots: actor i or an actor host writes ring i, the learner reads them.

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


Bells = Sequence[doorbell.Doorbell]


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
        header = self.slots[self.open_index()].header
        header.actor[:] = actor
        header.incarnation[:] = incarnation
        header.has_numbers[:] = has_numbers
        header.column[:] = np.arange(len(header.column))
        header.unroll[:] = unroll
        self.announce(time.monotonic_ns())

    def announce(self, committed_ns: int) -> None:
        """Announces the slot at `open_index`, whose header has its origin already."""
        head = self.head
        header = self.slots[head % self.num_slots].header
        header.sequence[:] = head
        header.committed_ns[:] = committed_ns
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
    """Memory and doorbells of all rings. Picklable to a child.

    Those of the actors here come first. An actor host has one ring for all its actors.
    """

    def __init__(
        self,
        slot: types.Trajectory,
        num_actors: int,
        num_slots: int,
        ranks: Sequence[int] = (),
        num_hosts: int = 0,
        host_slots: int = 1,
        bells: tuple[Bells, Bells] | None = None,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        """Allocates the rings.

        Args:
          ranks: those that read the rings, by ring; none named: a single one.
          host_slots: slots of the ring of each host.
          bells: of the readers by rank and of the writers by ring; None makes them.
        """
        self._num_actors = num_actors
        spec = ring_spec(slot, num_actors, num_slots)
        self._memories = [shared_memory.SharedArrays(spec, file)]
        if num_hosts:
            spec = ring_spec(slot, num_hosts, host_slots)
            self._memories.append(shared_memory.SharedArrays(spec, file))
        self._ranks = tuple(ranks) or (0,) * (num_actors + num_hosts)
        self.learner_doorbells, self.actor_doorbells = bells or (
            [doorbell.Doorbell() for _ in range(1 + max(self._ranks))],
            [doorbell.Doorbell() for _ in self._ranks],
        )

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for memory in self._memories)

    @property
    def blocks(self) -> list[np.ndarray]:
        """Memory of all rings: uint8 [bytes] each."""
        return [memory.block for memory in self._memories]

    def ring(self, number: int) -> TrajectoryRing:
        """Returns the ring of an actor, or of a host after all actors."""
        of_host = number >= self._num_actors
        row = number - self._num_actors * of_host
        arrays = self._memories[of_host].arrays
        return TrajectoryRing(
            arrays.words[row],
            nest.map_structure(lambda leaf: leaf[row], arrays.slots),
            self.actor_doorbells[number],
            self.learner_doorbells[self._ranks[number]],
        )

    def heads(self) -> np.ndarray:
        """Returns the number of slots ever committed, by ring: int64 [N]."""
        return self._column(_HEAD)

    def tails(self) -> np.ndarray:
        """Returns the number of slots ever released, by ring: int64 [N]."""
        return self._column(_TAIL)

    def _column(self, word: int) -> np.ndarray:
        return np.concatenate([m.arrays.words[:, word] for m in self._memories])

    def wake_all(self) -> None:
        """Wakes all waiting processes, so that they read the control block."""
        for bell in (*self.learner_doorbells, *self.actor_doorbells):
            bell.ring()

    def close(self) -> None:
        for memory in self._memories:
            memory.close()
        for bell in (*self.learner_doorbells, *self.actor_doorbells):
            bell.close()
