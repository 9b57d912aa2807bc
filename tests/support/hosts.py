"""An actor host and the learner's end of it, in one process and without Ray."""

import itertools
import sys

import numpy as np

from impala_mp import nest, specs
from impala_mp.transport import (
    control_block,
    host_board,
    host_books,
    host_messages,
    name_tables,
    parameter_store,
    slot_wire,
    trajectory_ring,
)
from impala_mp.workers import forwarder, host_link

ACTORS, SLOTS, HOST_SLOTS, BYTES = 2, 2, 3, 64
FIRST = 3  # number of the host's first actor in the run
FACTS = (("impala_mp", "1"), ("torch", "2"))


class Killed(BaseException):
    """SIGKILL: what is not in shared memory is gone."""


def slot_spec():
    environment = specs.EnvironmentSpec(
        specs.array_spec((3,), np.float32), specs.DiscreteSpec(3), 1
    )
    output = specs.actor_critic_output(environment.action, 3)
    return specs.trajectory_spec(environment, output, (), 2, 2)


class Host:
    """One process of an actor host; its actors act when they are told to."""

    def __init__(self, serials):
        self._serials = serials  # a number for each slot, of all hosts
        self._rings = trajectory_ring.TrajectoryRings(slot_spec(), ACTORS, SLOTS)
        self.store = parameter_store.ParameterStore(BYTES, checksums=True)
        self.control = control_block.ControlBlock(ACTORS)
        self.names = name_tables.NameTables(ACTORS, 4)
        self.forwarder = None
        self.ended = False

    def take(self, question, parameters=None):
        """Answers as a host does: first that it is new, then that it runs."""
        if not self.forwarder:
            if not question.begin:
                return host_messages.Reply(0, host_messages.NEW)
            self.forwarder = forwarder.Forwarder(
                question.incarnation,
                self._rings,
                ACTORS,
                self.store,
                self.control,
                self.names.tables,
                "none",
            )
            for table, names in zip(self.names.tables, question.names, strict=True):
                for name in names:
                    table.append(name)
        asked = [question._replace(poll_secs=0.0)]
        (reply,) = forwarder.answer([self.forwarder], asked, [parameters])
        self.ended |= question.stop
        state = host_messages.ENDED if self.ended else reply.state
        return reply._replace(facts=FACTS, state=state)

    def act(self, actor):
        """Commits a slot with the newest parameters; returns its serial, or None."""
        ring = self._rings.ring(actor)
        if not self.forwarder or not self.store.latest or self.ended:
            return None
        if not ring.has_space():
            return None
        serial = next(self._serials)
        slot = ring.slots[ring.open_index()]
        for leaf in nest.flatten(slot):
            leaf[...] = serial % 100
        slot.time_step.step_type[...] = serial % 3
        slot.parameter_version[...] = self.store.latest
        slot.agent_output.baseline[...] = serial
        ring.commit(FIRST + actor, self.forwarder.incarnation, unroll=serial)
        return serial


class Learner:
    """The learner's memory: what outlives every receiver."""

    def __init__(self, slots=HOST_SLOTS):
        self.rings = trajectory_ring.TrajectoryRings(
            slot_spec(), 1, SLOTS, (), 1, slots
        )
        self.board = host_board.HostBoard(1)
        self.ring = self.rings.ring(1)
        self.books = self.board.books(0, self.ring)
        self.store = parameter_store.ParameterStore(BYTES)
        self.control = control_block.ControlBlock(1)
        self.names = name_tables.NameTables(ACTORS, 4)
        self.learned = []  # serials
        self.publish()

    def publish(self):
        version = self.store.latest + 1
        self.control.set("epsilon", float(version))
        self.store.publish(np.full(BYTES, version % 256, np.uint8))

    def receiver(self):
        """A new receiver."""
        return host_link.HostLink(
            range(FIRST, FIRST + ACTORS),
            self.rings.ring(1),
            self.books,
            self.names.tables,
            host_link.Source(self.store, self.control),
            FACTS,
            publish_secs=0.0,
        )

    def learn(self):
        """Takes the oldest slot, and looks at each of its bytes."""
        if not self.ring.num_committed():
            return
        slot = self.ring.peek(0)
        serial = int(slot.header.unroll[0])
        header, ends = slot.header, slot.episode_end
        assert (header.sequence == self.ring.tail).all()
        assert header.actor[0] in range(FIRST, FIRST + ACTORS)
        assert (slot.time_step.step_type == serial % 3).all()
        assert (slot.agent_output.baseline == serial).all()
        for leaf in (*slot.time_step[1:4], ends.episode_return, ends.episode_length):
            assert (leaf == serial % 100).all()
        assert 1 <= slot.parameter_version.min() <= self.store.latest
        stamps = [
            int(self.ring.peek(i).header.committed_ns[0])
            for i in range(self.ring.num_committed())
        ]
        assert stamps == sorted(stamps)
        self.learned.append(serial)
        self.ring.release(1)


def serials():
    return itertools.count()


PROTOCOL = (host_link, forwarder, trajectory_ring, host_books, slot_wire)


def killed_at(line, function, *arguments, within=PROTOCOL):
    """Runs a function; kills it at the n-th line of these modules.

    Returns:
      Its result, or Killed.
    """
    files, left = {module.__file__ for module in within}, itertools.count(line, -1)

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line" and next(left) <= 0:
            raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return function(*arguments)
    except Killed:
        return Killed
    finally:
        sys.settrace(before)
