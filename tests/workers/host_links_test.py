"""An actor host that acts with two policies: one call has a question of each."""

import random

import pytest

from impala_mp.transport import host_board, host_messages
from impala_mp.workers import host_link, host_links
from tests.support import hosts

_POLICIES = 2


class _World:
    """The learners of two policies, and the processes of one seat's host."""

    def __init__(self):
        self.serials = hosts.serials()
        self.learners = [hosts.Learner() for _ in range(_POLICIES)]
        self.made = [[] for _ in range(_POLICIES)]  # serials
        self.clock = 1000.0
        self.kill_host()
        self.new_receiver()

    def kill_host(self):
        self.hosts = [hosts.Host(self.serials) for _ in range(_POLICIES)]

    def new_receiver(self):
        self.links = host_links.HostLinks([each.receiver() for each in self.learners])

    def act(self, policy, actor):
        serial = self.hosts[policy].act(actor)
        if serial is not None:
            self.made[policy].append(serial)

    def replies(self, asked):
        parts = zip(self.hosts, asked, strict=True)
        return [host.take(*question) for host, question in parts]

    def ask(self, loses=False):
        self.clock += 2.0
        asked = self.links.question(self.clock)
        replies = self.replies(asked)
        if loses:
            self.links.lost_contact()
            return
        try:
            self.links.accept(replies, self.clock, self.clock)
        except host_link.Restart:
            self.kill_host()
            self.links.lost_contact()

    def incarnations(self):
        return [each.books.incarnation for each in self.learners]


def _begun():
    world = _World()
    for _ in range(3):
        world.ask()
    return world


@pytest.mark.parametrize("seed", range(30))
def test_the_slots_of_each_policy_arrive_once_or_are_booked_as_lost(seed):
    rng, world = random.Random(seed), _World()
    for _ in range(150):
        event = rng.choice(["act"] * 6 + ["ask"] * 6 + ["learn", "lose", "die", "new"])
        policy = rng.randrange(_POLICIES)
        if event == "act":
            world.act(policy, rng.randrange(hosts.ACTORS))
        elif event == "learn":
            world.learners[policy].publish()
            for _ in range(hosts.HOST_SLOTS):
                world.learners[policy].learn()
        elif event == "die":
            world.kill_host()
            world.links.lost_contact()
        elif event == "new":
            world.new_receiver()
        else:
            world.ask(loses=event == "lose")
    counts = [each.books.counts() for each in world.learners]
    for learner, made, own in zip(world.learners, world.made, counts, strict=True):
        while learner.ring.num_committed():
            learner.learn()
        assert len(learner.learned) == len(set(learner.learned)) == own.arrived
        assert set(learner.learned) <= set(made)
        assert own.arrived + own.lost <= len(made)
    assert world.links.counts() == tuple(map(sum, zip(*counts, strict=True)))
    assert world.links.arrived == world.links.counts().arrived


def test_a_receiver_that_dies_between_two_books_begins_both_again():
    """The books are of two policies; only together they are an incarnation."""
    for line in range(400):
        world = _World()
        world.ask()  # the host says that it is new
        asked = hosts.killed_at(line, world.links.question, world.clock + 2.0)
        if asked is not hosts.Killed:
            assert line > 20
            break
        world.new_receiver()
        for _ in range(3):
            world.ask()
        own = [host.forwarder.incarnation for host in world.hosts]
        assert own == world.incarnations()
        for policy in range(_POLICIES):
            world.act(policy, 0)
        world.ask()
        assert [each.ring.head for each in world.learners] == [1, 1]


def test_a_full_ring_shortens_the_wait_and_full_rings_hold_the_host_back():
    world = _begun()

    def waits(now):
        return [question.poll_secs for question, _ in world.links.question(now)]

    assert waits(world.clock + 2.0) == [host_link.POLL_SECS] * 2
    for policy, room in ((0, [0, hosts.HOST_SLOTS]), (1, [0, 0])):
        for _ in range(20):
            world.act(policy, 0)
            world.ask()
        asked = world.links.question(world.clock + 3.0)
        assert [question.room for question, _ in asked] == room
        assert world.links.room == 0
        if any(room):
            assert waits(world.clock + 3.0) == [0.0, host_links._SHORT_SECS]
    now = world.clock + 3.0
    assert world.links.question(now + 0.5) is None
    assert world.links.question(now + 1.5) is not None


def test_a_host_is_drained_when_the_slots_of_all_policies_have_arrived():
    world = _begun()
    for _ in range(hosts.SLOTS):
        for actor in range(hosts.ACTORS):
            world.act(1, actor)  # more than one call brings
    first = world.links.question(world.clock, stop=True)
    world.links.accept(world.replies(first), world.clock, world.clock)
    assert world.links.state == host_messages.ENDED
    assert not world.links.drained
    world.learners[1].learn()
    world.ask()
    assert world.links.drained


def test_a_host_that_answers_for_fewer_policies_is_restarted():
    world = _begun()
    asked = world.links.question(world.clock + 2.0)
    (reply, _) = world.replies(asked)
    with pytest.raises(host_link.Restart, match="1 policies, and 2 play"):
        world.links.accept([reply], world.clock, world.clock)


def test_the_books_of_hosts_and_policies_are_apart():
    board = host_board.HostBoard(3, 2)
    ring = hosts.Learner().ring
    every = [(host, policy) for host in range(3) for policy in range(2)]
    for number, (host, policy) in enumerate(every):
        for _ in range(number):
            board.books(host, ring, policy).begin()
    found = [board.books(host, ring, policy).incarnation for host, policy in every]
    assert found == list(range(6))
    board.close()


def test_the_lag_is_that_of_the_policy_that_is_furthest_behind():
    world = _begun()
    assert world.links.lag == 0
    world.learners[1].publish()
    world.learners[1].publish()
    assert world.links.lag == 2
    world.ask()
    assert world.links.lag == 0
