"""Forwarder: plays the learner on an actor host.

It reads the rings of the actors there, and writes their parameter store and live
values. It only answers: the receiver at the learner asks for slots, as many as fit
there. A slot goes back to its actor when a later question shows that it has arrived.
"""

import array
import collections
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from impala_mp import types
from impala_mp.transport import (
    control_block,
    doorbell,
    host_messages,
    name_tables,
    parameter_store,
    slot_wire,
    trajectory_ring,
)

_MAX_BYTES = 2**25  # of the slots in one reply, if there is more than one


class _Packed(NamedTuple):
    """A slot that was numbered and has not been acknowledged."""

    ring: int
    frame: bytes
    committed_ns: int


class Forwarder:
    """The host's end of one policy, of one incarnation."""

    def __init__(
        self,
        incarnation: int,
        rings: trajectory_ring.TrajectoryRings,
        num_actors: int,
        store: parameter_store.ParameterStore,
        control: control_block.ControlBlock,
        names: list[name_tables.NameTable],
        compression: str,
    ) -> None:
        """`names` are the tables of the actors here; one policy has them."""
        self.incarnation = incarnation
        self._rings = [rings.ring(i) for i in range(num_actors)]
        self.bell = rings.learner_doorbells[0]
        self._store, self._control = store, control
        self._names = names
        self.packer = slot_wire.Packer(compression)
        self._first = 0  # number of the oldest slot that is not acknowledged
        self._packed: collections.deque[_Packed] = collections.deque()
        self._held = [0] * num_actors  # slots of each ring that are packed
        # The learner's version of each publication here, which count from 1.
        self._versions = array.array("q")

    @property
    def num_reported(self) -> int:
        """Slots that the actors have committed."""
        return sum(ring.head for ring in self._rings)

    def hear(self, question: host_messages.Question, parameters: Any) -> None:
        """Takes in a question; `parameters` are a frame of `slot_wire.seal`.

        A question for another incarnation changes nothing here.

        Raises:
          slot_wire.Refused: the parameters are not whole.
          RuntimeError: the question skips slots that were never sent.
        """
        if question.incarnation != self.incarnation:
            return
        self._acknowledge(question.next)
        for name, value in question.live:  # before the version that they came with
            self._control.set(name, value)
        if parameters is not None:
            self._publish(question.version, parameters)

    def has_slots(self, question: host_messages.Question) -> bool:
        """Returns whether there is one to send, and room for it."""
        return question.room > 0 and bool(self._packed or self._waiting())

    @property
    def stopping(self) -> bool:
        return self._control.stopping

    def reply(
        self, question: host_messages.Question, waited_ns: int
    ) -> host_messages.Reply:
        """Returns the answer, with the slots that are there."""
        if question.incarnation != self.incarnation:
            return host_messages.Reply(self.incarnation, host_messages.RUNNING)
        slots = self._pack(question.room)
        now = time.monotonic_ns()
        names = tuple(tuple(table.names()) for table in self._names)
        return host_messages.Reply(
            self.incarnation,
            host_messages.RUNNING,
            first=self._first,
            slots=tuple(each.frame for each in slots),
            ages_ns=tuple(now - each.committed_ns for each in slots),
            reported=self.num_reported,
            waited_ns=waited_ns,
            version=self._versions[-1] if self._versions else 0,
            names=names if sum(map(len, names)) > question.num_names else (),
        )

    def _acknowledge(self, number: int) -> None:
        """Releases the slots before `number`, which have arrived."""
        if number > self._first + len(self._packed):
            raise RuntimeError(f"slot {number} is asked for, which was never numbered")
        while self._first < number:
            ring = self._packed.popleft().ring
            self._rings[ring].release(1)
            self._held[ring] -= 1
            self._first += 1
        self._control.books[0].set("learned", self._first)

    def _publish(self, version: int, parameters: Any) -> None:
        if self._versions and version <= self._versions[-1]:
            return  # a repeated question
        values = slot_wire.unseal(parameters, self._store.num_bytes)
        # In this order: no actor may act with a version that has no number.
        self._versions.append(version)
        self._store.publish(values)

    def _waiting(self) -> list[int]:
        """Returns the rings that have a slot which is not packed."""
        return [
            i
            for i, ring in enumerate(self._rings)
            if ring.num_committed() > self._held[i]
        ]

    def _pack(self, room: int) -> list[_Packed]:
        """Returns up to `room` slots, the oldest first; the same if asked again."""
        total = 0
        chosen: list[_Packed] = []
        for place in range(room):
            if place == len(self._packed):
                rings = self._waiting()
                if not rings:
                    break
                self._pack_next(rings)
            each = self._packed[place]
            total += len(each.frame)
            if chosen and total > _MAX_BYTES:
                break
            chosen.append(each)
        return chosen

    def _pack_next(self, rings: list[int]) -> None:
        """Packs and numbers the oldest slot of these rings."""
        slots = {i: self._rings[i].peek(self._held[i]) for i in rings}
        ring = min(rings, key=lambda i: slots[i].header.committed_ns[0])
        slot = slots[ring]
        frame = self.packer.pack(self._with_versions(slot))
        stamp = int(slot.header.committed_ns[0])
        self._packed.append(_Packed(ring, frame, stamp))
        self._held[ring] += 1

    def _with_versions(self, slot: types.Trajectory) -> types.Trajectory:
        """Returns a slot with the learner's versions instead of those here."""
        known = np.frombuffer(self._versions, np.int64)  # a view
        return slot._replace(parameter_version=known[slot.parameter_version - 1])


def answer(
    forwarders: Sequence[Forwarder],
    questions: Sequence[host_messages.Question],
    parameters: Sequence[Any],
) -> list[host_messages.Reply]:
    """Answers the question of each policy, by its forwarder.

    All of them hear first: actors need a free slot of every policy to go on.

    Raises:
      slot_wire.Refused: some parameters are not whole.
      RuntimeError: a question skips slots that were never sent.
    """
    parts = list(zip(forwarders, questions, strict=True))
    for (forwarder, question), frame in zip(parts, parameters, strict=True):
        forwarder.hear(question, frame)
    start = time.monotonic_ns()
    end = start + int(1e9 * max(each.poll_secs for each in questions))
    bells = [each.bell for each in forwarders]
    while not any(each.has_slots(question) for each, question in parts):
        left = 1e-9 * (end - time.monotonic_ns())
        if left <= 0.0 or forwarders[0].stopping:
            break
        doorbell.wait_for_any(bells, left)
    waited_ns = time.monotonic_ns() - start
    # The first policy's reply has the names, so it is made last: a slot of the others
    # never comes before a name that it needs.
    replies = [each.reply(question, waited_ns) for each, question in reversed(parts)]
    return replies[::-1]
