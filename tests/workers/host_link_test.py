"""Slots of an actor host arrive exactly once, also if a process is killed."""

import random
import time

import pytest
from hypothesis import given, settings, strategies

from impala_mp import errors
from impala_mp.transport import host_books, host_messages, slot_wire
from impala_mp.workers import host_facts, host_link
from tests.support import hosts


class _World:
    """One seat: processes of its host follow each other, and so do receivers."""

    def __init__(self, slots=hosts.HOST_SLOTS):
        self.serials, self.learner = hosts.serials(), hosts.Learner(slots)
        self.made = []  # serials of all slots, by host process
        self.told = [0]  # most slots that a receiver was told of, by host process
        self.restarts, self.clock = 0, time.monotonic()
        self.kill_host()
        self.link = self.learner.receiver()

    def kill_host(self):
        self.host = hosts.Host(self.serials)
        self.made.append([])
        self.told.append(0)

    def kill_receiver(self):
        self.link = self.learner.receiver()

    def act(self, actor):
        serial = self.host.act(actor)
        if serial is not None:
            self.made[-1].append(serial)

    def ask(self, loses=False, again=False, host_dies_at=None, receiver_dies_at=None):
        """One question; what may go wrong does."""
        self.clock += 2.0
        now = self.clock
        asked = self._receiver(receiver_dies_at, self.link.question, now, self.stops)
        if asked is hosts.Killed:
            return
        if host_dies_at is not None:
            if hosts.killed_at(host_dies_at, self.host.take, *asked) is hosts.Killed:
                self.kill_host()
            loses = True
        reply = self.host.take(*asked)
        if loses:
            self.link.lost_contact()
            return
        for each in [reply] * (1 + again):
            self._accept(each, now, receiver_dies_at)

    stops = False
    dies_in = hosts.PROTOCOL  # modules in which a receiver is killed

    def _accept(self, reply, now, dies_at):
        if reply.incarnation == self.learner.books.incarnation:
            before = self.told[-1]
            self.told[-1] = max(before, reply.reported)
        try:
            took = self._receiver(dies_at, self.link.accept, reply, now, now)
        except host_link.Restart:
            self.restarts += 1
            self.kill_host()
            self.link.lost_contact()
            return
        if took is hosts.Killed:
            # It may have noted the report, or not.
            self.told[-1] = self.learner.books.counts().reported - sum(self.told[:-1])

    def _receiver(self, dies_at, function, *arguments):
        if dies_at is None:
            return function(*arguments)
        result = hosts.killed_at(dies_at, function, *arguments, within=self.dies_in)
        if result is hosts.Killed:
            self.kill_receiver()
        return result

    def check(self):
        """Nothing twice, nothing out of order, and the sum is exact."""
        counts = self.learner.books.counts()
        waiting = self.learner.ring.num_committed()
        assert counts.arrived == len(self.learner.learned) + waiting
        assert counts.reported == sum(self.told)
        learned = self.learner.learned
        assert learned == sorted(set(learned))  # as they were made, none twice
        for made in self.made:
            own = set(made) & set(learned)
            assert own == set(made[: len(own)])  # no gap

    def finish(self):
        """Learns until nothing is on its way."""
        self.stops = True
        for _ in range(100):
            self.ask()
            while self.learner.ring.num_committed():
                self.learner.learn()
            self.check()
            if self.link.drained:
                break
        counts = self.learner.books.counts()
        assert self.link.drained
        assert counts.on_the_way == 0
        assert counts.arrived == len(self.learner.learned)
        assert counts.reported == counts.arrived + counts.lost
        assert set(self.made[-1]) <= set(self.learner.learned)


_ACT = strategies.tuples(strategies.just("act"), strategies.integers(0, 1))
_ASK = strategies.tuples(
    strategies.just("ask"), strategies.just(False), strategies.booleans()
)
_EVENTS = strategies.one_of(
    *([_ACT] * 5 + [_ASK] * 4),
    strategies.just(("ask", True, False)),
    strategies.just(("learn",)),
    strategies.just(("publish",)),
    strategies.just(("kill_host",)),
    strategies.just(("kill_receiver",)),
    strategies.tuples(strategies.just("host_dies"), strategies.integers(0, 80)),
    strategies.tuples(strategies.just("receiver_dies"), strategies.integers(0, 120)),
)


def _do(world, event, *arguments):
    if event == "ask":
        loses, again = arguments
        world.ask(loses, again)
    elif event == "host_dies":
        world.ask(host_dies_at=arguments[0])
    elif event == "receiver_dies":
        world.ask(receiver_dies_at=arguments[0])
    elif event in ("learn", "publish"):
        getattr(world.learner, event)()
    else:
        getattr(world, event)(*arguments)
    world.check()


@settings(max_examples=40, deadline=None)
@given(strategies.lists(_EVENTS, min_size=10, max_size=30))
def test_nothing_is_lost_unbooked_or_twice_in_any_order_of_faults(events):
    world = _World()
    for _ in range(3):
        world.ask()
    for event in events:
        _do(world, *event)
    world.finish()


def _busy(world, rng, steps):
    for _ in range(steps):
        for actor in range(hosts.ACTORS):
            world.act(actor)
        world.ask()
        if rng.random() < 0.5:
            world.learner.learn()
        world.check()


@pytest.mark.parametrize("who", ["host_dies_at", "receiver_dies_at"])
def test_a_kill_at_every_line_of_the_protocol_loses_only_what_is_booked(who):
    rng, lines = random.Random(0), range(0, 300, 4)
    world = _World()
    for line in lines:
        _busy(world, rng, 3)
        world.ask(**{who: line})
        world.check()
    world.finish()
    counts = world.learner.books.counts()
    assert counts.arrived > len(lines) / 2
    assert who == "host_dies_at" or counts.lost == 0 == world.restarts


def test_slots_of_a_killed_host_that_were_announced_are_booked_as_lost():
    world = _World()
    for _ in range(3):
        world.ask()
    for _ in range(9):  # until all rings are full
        world.act(0)
        world.act(1)
        world.ask()
    announced = world.learner.books.counts()
    assert announced.on_the_way > 0
    assert world.link.room == 0
    world.kill_host()
    world.learner.learn()
    for _ in range(4):
        world.ask()
    after = world.learner.books.counts()
    assert after.lost == announced.on_the_way
    assert after.on_the_way == 0


def _announced():
    """A world with full rings, whose host has just been killed, and its counts."""
    world = _World()
    for _ in range(6):
        world.act(0)
        world.act(1)
        world.ask()
    counts = world.learner.books.counts()
    assert counts.on_the_way > 0
    world.kill_host()
    world.ask()  # it is a new one
    return world, counts


def test_a_kill_at_every_line_that_begins_an_incarnation_books_each_slot_once():
    deaths = 0
    for line in range(60):
        world, before = _announced()
        world.dies_in = (host_books,)
        receiver = world.link
        world.ask(receiver_dies_at=line)
        deaths += world.link is not receiver
        world.check()
        for _ in range(3):
            world.ask()
            world.check()
        after = world.learner.books.counts()
        assert after == before._replace(on_the_way=0, lost=before.on_the_way)
    assert 20 < deaths < 60  # the last lines come after the end


@pytest.mark.parametrize("slots", [1, 2])
def test_no_stamp_is_by_the_clock_of_the_host(monkeypatch, slots):
    """It counts from the host's start, which may be years before the learner's."""
    world = _World(slots)
    ahead = time.monotonic_ns() + 10**16
    monkeypatch.setattr(time, "monotonic_ns", lambda: ahead)
    for _ in range(10):
        world.act(0)
        world.ask()
        ring = world.learner.ring
        for offset in range(ring.num_committed()):
            assert ring.peek(offset).header.committed_ns[0] <= world.clock * 1e9
            world.learner.learn()
    assert len(world.learner.learned) > 3


def test_a_full_ring_holds_the_host_back():
    world = _World()
    for _ in range(20):
        world.act(0)
        world.act(1)
        world.ask()
    assert world.link.room == 0
    assert world.host.act(0) is world.host.act(1) is None
    question, _ = world.link.question(world.clock + 3.0)
    assert (question.room, question.poll_secs) == (0, 0.0)


def test_versions_are_those_of_the_learner_and_live_values_come_first():
    world = _World()
    for _ in range(30):
        world.learner.publish()
        world.learner.publish()
        world.ask()
        world.act(0)
        world.act(1)
        epsilon = world.host.control.get("epsilon")
        assert world.link.version <= epsilon <= world.learner.store.latest
        while world.learner.ring.num_committed():
            (version,) = set(world.learner.ring.peek(0).parameter_version.flat)
            assert version % 2 == 1  # those that were published between two questions
            world.learner.learn()
    assert len(world.learner.learned) > 30


def test_no_version_is_published_before_its_live_values():
    world = _World()
    for _ in range(2):
        world.ask()
    seen, publish = [], world.host.store.publish

    def look(values):
        seen.append(world.host.control.get("epsilon"))
        return publish(values)

    world.host.store.publish = look
    for _ in range(5):
        world.learner.publish()
        world.ask()
    assert seen == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_names_come_before_the_slots_that_need_them_and_outlive_the_host():
    world = _World()
    for _ in range(3):
        world.ask()
    world.host.names.tables[1].append("coins")
    world.ask()
    assert [t.names() for t in world.learner.names.tables] == [[], ["coins"]]
    world.kill_host()
    world.kill_receiver()
    for _ in range(3):
        world.ask()
    assert [t.names() for t in world.host.names.tables] == [[], ["coins"]]


def _running():
    world = _World()
    for _ in range(3):
        world.ask()
    world.act(0)
    question, parameters = world.link.question(world.clock + 2.0)
    return world, world.host.take(question, parameters)


@pytest.mark.parametrize("damage", ["bits", "shorter", "gap", "unreported"])
def test_a_damaged_reply_is_asked_for_again_and_then_restarts_the_host(damage):
    world, reply = _running()
    (frame,) = reply.slots
    changes = {
        "bits": {"slots": (frame[:-1] + bytes([frame[-1] ^ 1]),)},
        "shorter": {"slots": (frame[:-1],)},
        "gap": {"first": reply.first + 1, "reported": reply.reported + 1},
        "unreported": {"reported": 0},
    }
    wrong = reply._replace(**changes[damage])
    now = time.monotonic()
    for _ in range(host_link._MAX_REFUSED - 1):
        world.link.accept(wrong, now, now)
        assert world.learner.ring.num_committed() == 0
    with pytest.raises(host_link.Restart, match="refused"):
        world.link.accept(wrong, now, now)
    world.link.accept(reply, now, now)
    assert world.learner.ring.num_committed() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("actor", 0), ("actor", 99), ("column", 1), ("step_type", 7), ("version", 10**6)],
)
def test_a_whole_slot_with_a_wrong_origin_is_refused(field, value):
    world, _ = _running()
    slot = world.learner.ring.slots[0]
    ring = world.host._rings.ring(0)
    for source, target in zip(
        hosts.nest.flatten(ring.peek(0)), hosts.nest.flatten(slot), strict=True
    ):
        target[...] = source
    part = {
        "step_type": slot.time_step.step_type,
        "version": slot.parameter_version,
    }.get(field)
    (part if part is not None else getattr(slot.header, field))[...] = value
    with pytest.raises(slot_wire.Refused):
        world.link._check(slot)


def test_another_version_is_refused_with_both_values():
    world, reply = _running()
    now = time.monotonic()
    wrong = reply._replace(facts=(("impala_mp", "1"), ("torch", "3")))
    with pytest.raises(errors.BadInput, match="torch is 3, and 2 where the learner is"):
        world.link.accept(wrong, now, now)


def test_a_difference_of_one_of_several_policies_names_it():
    one = (("python", "3.12"), ("slot", "reward[5]"))
    other = (("python", "3.12"), ("slot", "reward[9]"))
    here = host_facts.of_all({"prey": one, "hunters": one})
    assert host_facts.difference(here, here) == ""
    there = host_facts.of_all({"prey": one, "hunters": other})
    sentence = host_facts.difference(here, there)
    assert sentence.startswith("slot of hunters is ")
    assert sentence.endswith("Install the same code on all nodes.")
    assert host_facts.of_all({"": one}) == one


def test_the_first_difference_of_long_layouts_is_shown():
    here = "a" * 500 + "x" + "b" * 500
    there = here.replace("x", "y")
    sentence = host_facts.difference((("slot", here),), (("slot", there),))
    assert "ay" + "b" * 59 in sentence
    assert len(sentence) < 500


def test_a_repeated_reply_commits_nothing_twice():
    world, reply = _running()
    now = time.monotonic()
    for _ in range(3):
        world.link.accept(reply, now, now)
    assert world.learner.ring.num_committed() == len(reply.slots) == 1


def test_a_question_of_an_old_receiver_changes_nothing():
    world, reply = _running()
    stale = host_messages.Question(
        world.host.forwarder.incarnation - 1, 1, 3, version=10**6
    )
    answer = world.host.take(stale, b"nonsense")
    assert answer.slots == ()
    now = time.monotonic()
    world.link.accept(reply, now, now)
    assert world.learner.ring.num_committed() == 1
