"""Receiver's end of one actor host and policy: plays the host's actors at the learner.

It has no thread and makes no call. `question` gives what to ask next, and `accept`
takes the reply into the ring of the host. All that must outlive the receiver is in
shared memory: the ring, and the books with the incarnation and its first slot.
"""

import collections
import math
from typing import Any

import numpy as np

from impala_mp import errors, types
from impala_mp.config import live_hyperparameters
from impala_mp.transport import (
    control_block,
    host_books,
    host_messages,
    name_tables,
    parameter_store,
    slot_wire,
    trajectory_ring,
)
from impala_mp.workers import host_facts

POLL_SECS = 0.2  # a host waits so long for a slot
_MAX_REFUSED = 3  # replies in a row; then the host is restarted
_AGES = 512  # newest slots, for percentiles


class Source:
    """Parameters and live values of one policy's learner, for all hosts."""

    def __init__(
        self, store: parameter_store.ParameterStore, control: control_block.ControlBlock
    ) -> None:
        buffer = np.empty(store.num_bytes, np.uint8)
        self._reader = parameter_store.ParameterReader(store, buffer)
        self._control = control
        self.latest = lambda: store.latest
        self.frame = b""  # of the newest version that was fetched
        self.version = 0

    def fetch(self) -> None:
        """Fetches the newest version, if there is a newer one."""
        if self._reader.fetch():
            self.frame = slot_wire.seal(self._reader.buffer)
            self.version = self._reader.version

    def live(self) -> tuple[tuple[str, float], ...]:
        """Returns the live values. To be read after the version they go with."""
        names = live_hyperparameters.NAMES
        return tuple((name, self._control.get(name)) for name in names)


class Restart(Exception):
    """The host's process must be restarted; the text is a clause."""


class HostLink:
    """Link to the host of one seat, for one policy."""

    def __init__(
        self,
        actors: range,
        ring: trajectory_ring.TrajectoryRing,
        books: host_books.HostBooks,
        names: list[name_tables.NameTable],
        source: Source,
        facts: host_facts.Facts,
        publish_secs: float,
    ) -> None:
        """`actors` are the numbers of its actors in the run, `names` their tables.

        The tables are those of all policies: the link of one policy has them.
        """
        self.ring, self.books = ring, books
        self._actors, self._names, self._source = actors, names, source
        self._facts, self._publish_secs = facts, publish_secs
        self._begin = False  # the next question gives out a new incarnation
        self._published = -math.inf  # monotonic
        self._refused = 0  # replies in a row
        self.version = 0  # of the learner, that the host has
        self.state = "pending"
        self.counters: dict[str, int] = {}
        self.ages: collections.deque[float] = collections.deque(maxlen=_AGES)  # seconds

    @property
    def room(self) -> int:
        return self.ring.num_slots - self.ring.num_committed()

    @property
    def drained(self) -> bool:
        """True if the host has ended and all its slots have arrived."""
        ended = self.state in (host_messages.ENDED, host_messages.FAILED)
        return ended and not self.books.on_the_way

    @property
    def lag(self) -> int:
        """Versions that the learner is ahead of the host; 0 before its first."""
        return self._source.latest() - self.version if self.version else 0

    def question(
        self, now: float, stop: bool = False
    ) -> tuple[host_messages.Question, Any]:
        """Returns the next question and the parameters with it.

        While the ring is full it asks for no slot; so the host waits.
        """
        room = self.room
        names: tuple[tuple[str, ...], ...] = ()
        if self._begin:
            self.books.begin()
            names = tuple(tuple(table.names()) for table in self._names)
        version, frame = self._publication(now)
        asked = host_messages.Question(
            self.books.incarnation,
            self.books.next,
            room,
            POLL_SECS * (room > 0),
            self._begin,
            stop,
            self._source.live(),
            version,
            names,
            sum(map(len, self._names)),
        )
        return asked, frame

    def _publication(self, now: float) -> tuple[int, Any]:
        """Returns the version and parameters that are due, or (0, None)."""
        if now - self._published < self._publish_secs or self.state != "running":
            return 0, None
        self._source.fetch()
        if self._source.version <= self.version:
            return 0, None
        self._published = now
        return self._source.version, self._source.frame

    def lost_contact(self) -> None:
        """Notes that a call failed: the host may be another one next time."""
        self.state, self.version, self._published = "restarting", 0, -math.inf

    def accept(self, reply: host_messages.Reply, asked: float, now: float) -> None:
        """Takes in a reply; `asked` and `now` are monotonic times around the call.

        Raises:
          BadInput: the host cannot take part.
          Restart: its process must be restarted.
        """
        if reply.state == host_messages.FAILED:
            self._fail(reply)
        self._begin = reply.state == host_messages.NEW
        if self._begin:
            self.state, self.version, self._published = "joining", 0, -math.inf
            return
        if reply.incarnation != self.books.incarnation:
            raise Restart(f"has incarnation {reply.incarnation}, which is an old one")
        if reply.facts:
            sentence = host_facts.difference(self._facts, reply.facts)
            if sentence:
                raise errors.BadInput(sentence)
        self.state, self.version = reply.state, reply.version
        self.counters = dict(reply.counters)
        for table, names in zip(self._names, reply.names, strict=False):
            for name in names[len(table) :]:
                table.append(name)
        try:
            self._receive(reply, asked, now)
            self._refused = 0
        except slot_wire.Refused as error:
            self._refused += 1
            if self._refused >= _MAX_REFUSED:
                self._refused = 0
                raise Restart(f"sent slots that were refused: {error}") from error

    def _fail(self, reply: host_messages.Reply) -> None:
        if reply.is_bad_input:
            raise errors.BadInput(reply.failure)
        raise Restart(f"failed: {reply.failure}")

    def _receive(self, reply: host_messages.Reply, asked: float, now: float) -> None:
        """Commits the slots that have not arrived yet.

        Raises:
          slot_wire.Refused: a slot is not what belongs there; the ones before count.
        """
        if reply.first > self.books.next:
            raise slot_wire.Refused(
                f"slot {reply.first} came where {self.books.next} is due"
            )
        if reply.reported < reply.first + len(reply.slots):
            raise slot_wire.Refused("more slots came than were reported")
        self.books.report(reply.reported)
        received_ns = int(now * 1e9)
        # No clock of two hosts is compared: half of the way back and forth is the way.
        way_ns = max(0, int((now - asked) * 1e9) - reply.waited_ns) // 2
        slots = zip(reply.slots, reply.ages_ns, strict=True)
        for number, (frame, age_ns) in enumerate(slots, reply.first):
            if number < self.books.next:
                continue  # it came before, and the acknowledgement was lost
            if not self.room:
                return
            self._commit(frame, received_ns - max(0, age_ns) - way_ns)
            self.ages.append((max(0, age_ns) + way_ns) * 1e-9)

    def _commit(self, frame: bytes, stamp: int) -> None:
        ring = self.ring
        slot = ring.slots[ring.open_index()]
        slot_wire.unpack(frame, slot)
        self._check(slot)
        # The batcher needs the order of the ring in the stamps. The slot before is this
        # one, with the stamp of the host, if there is a single one.
        if ring.head and ring.num_slots > 1:
            before = ring.slots[(ring.head - 1) % ring.num_slots]
            stamp = max(stamp, int(before.header.committed_ns[0]))
        ring.announce(stamp)

    def _check(self, slot: types.Trajectory) -> None:
        """Refuses what would make the learner read or count at a wrong place."""
        header, versions = slot.header, slot.parameter_version
        number = header.actor[0]
        size = len(header.actor)
        if number not in self._actors or (header.actor != number).any():
            raise slot_wire.Refused(f"actor {number} is none of this host")
        if (header.column != np.arange(size)).any():
            raise slot_wire.Refused("the columns are out of order")
        if versions.min() < 1 or versions.max() > self._source.latest():
            raise slot_wire.Refused(f"version {versions.max()} was not published yet")
        if slot.time_step.step_type.max() > types.StepType.LAST:
            raise slot_wire.Refused("a step is of no type")
