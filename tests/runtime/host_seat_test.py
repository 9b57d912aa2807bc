"""A seat for an actor host: calls, deaths and the budget, with an engine in memory."""

from typing import NamedTuple

import pytest

from impala_mp import errors
from impala_mp.runtime import host_seat
from impala_mp.transport import host_messages
from impala_mp.workers import host_links
from tests.support import builders, hosts


class _Answer(NamedTuple):
    seat: int
    number: int
    replies: tuple
    error: str = ""
    is_gone: bool = False


class _Engine:
    """Calls that end when the test says so, and one process at a time."""

    def __init__(self):
        self.hired, self.calls, self.kills = 0, [], []
        self.leaving = False

    def hire(self, task):
        self.hired += 1

    def call(self, seat, number, asked):
        self.calls.append((number, asked))

    def kill(self, seat, restart=True):
        self.kills.append(restart)

    def is_leaving(self, place):
        return self.leaving


class _Run:
    """A seat, and a host that answers it."""

    def __init__(self, **health):
        self.learner, self.engine = hosts.Learner(), _Engine()
        self.host = hosts.Host(hosts.serials())
        overrides = {f"health.{name}": value for name, value in health.items()}
        made = builders.config(**overrides).health
        task = host_messages.Task(0, "host", "{}", 0, (hosts.FIRST, hosts.ACTORS), 5)
        links = host_links.HostLinks([self.learner.receiver()])
        self.seat = host_seat.HostSeat(links, task, self.engine, made)
        self.now = 1000.0

    def turn(self, secs=0.3, stop=False):
        self.now += secs
        self.seat.turn(self.now, stop)

    def answer(self, **fault):
        """Ends the newest call; returns the number of slots that arrived."""
        number, asked = self.engine.calls[-1]
        replies = () if fault else tuple(self.host.take(*each) for each in asked)
        return self.seat.take(_Answer(0, number, replies, **fault), self.now)

    def start(self):
        for _ in range(3):
            self.turn()
            self.answer()


def test_one_call_at_a_time_brings_the_slots_of_a_host():
    run = _Run()
    run.start()
    run.host.act(0)
    run.turn()
    run.turn()
    assert len(run.engine.calls) == 4
    assert run.answer() == 1
    status = run.seat.status(run.now)
    assert (status["state"], status["arrived"], status["lost"]) == ("running", 1, 0)


def test_a_host_that_has_lived_and_is_silent_is_killed_and_asked_again():
    run = _Run(hang_secs=60.0)
    run.start()
    run.turn()
    run.turn(4.0)
    assert run.seat.status(run.now)["state"] == "unreachable"
    run.turn(60.0)
    assert run.engine.kills == [True]
    assert "silent for 64 s" in run.seat.reason
    assert run.answer() == 0  # a late reply of the process that was killed
    assert not run.seat.is_alive
    run.turn(1.0)
    assert len(run.engine.calls) == 5
    late = host_messages.Reply(0, host_messages.NEW)
    run.seat.take(_Answer(0, 4, (late,)), run.now)
    assert not run.seat.is_alive
    run.turn(0.3)
    assert len(run.engine.calls) == 5  # it is still in flight


def test_a_host_that_no_node_has_room_for_is_waited_for():
    run = _Run()
    run.turn()
    run.turn(10_000.0)
    assert run.engine.kills == []
    assert run.seat.status(run.now)["state"] == "pending"


def test_a_death_is_counted_once_and_the_seat_is_given_up_in_the_end():
    run = _Run(**{"max_restarts.host": 1, "max_failed_starts": 9})
    for death in (1, 2):
        run.host = hosts.Host(hosts.serials())
        run.start()
        run.turn()
        run.answer(error="the worker died")
        run.turn(1.0)
        run.answer(error="it is restarting")  # of the same death
        run.now += 60.0
        assert run.seat.deaths == death
    assert run.seat.lost
    assert run.engine.kills == [False]
    assert "max_restarts.host=1" in run.seat.reason
    calls = len(run.engine.calls)
    run.turn(100.0)
    assert len(run.engine.calls) == calls
    assert run.seat.is_over


def test_a_host_that_is_gone_for_good_is_hired_again():
    run = _Run()
    run.start()
    run.turn()
    run.answer(error="the actor died", is_gone=True)
    run.turn(5.0)
    assert run.engine.hired == 2


def test_a_missing_package_is_refused_with_a_sentence():
    run = _Run()
    run.turn()
    with pytest.raises(errors.BadInput, match="Install impala_mp and the environment"):
        run.answer(error="ModuleNotFoundError: No module named 'impala_mp'")


def test_a_host_that_refuses_its_environment_ends_the_run_with_its_words():
    run = _Run()
    run.start()
    number = len(run.engine.calls)
    reply = host_messages.Reply(
        1, host_messages.FAILED, failure="there is no game.", is_bad_input=True
    )
    run.turn()
    with pytest.raises(errors.BadInput, match="host 0: there is no game"):
        run.seat.take(_Answer(0, number + 1, (reply,)), run.now)


def test_actors_that_do_not_start_in_time_are_killed():
    run = _Run(start_secs=10.0, reset_secs=10.0)
    run.turn()
    run.answer()
    reply = host_messages.Reply(1, host_messages.STARTING)
    for secs in (0.3, 15.0, 15.0):
        run.turn(secs)
        number = len(run.engine.calls)
        run.seat.take(_Answer(0, number, (reply,)), run.now)
    assert run.engine.kills == [True]
    assert "did not start" in run.seat.reason


def test_at_the_end_a_host_is_over_when_all_its_slots_have_arrived():
    run = _Run()
    run.start()
    run.host.act(0)
    run.turn(stop=True)
    assert not run.seat.is_over
    run.answer()
    assert run.seat.is_over
    run.seat.dismiss()
    assert run.engine.kills == [False]


def test_a_host_leaves_a_node_that_is_to_end_and_nothing_is_lost():
    run = _Run()
    run.start()
    for _ in range(2):
        run.host.act(0)
    run.engine.leaving = True
    run.turn()
    assert run.engine.calls[-1][1][0][0].stop
    assert run.answer() == 2
    assert run.engine.kills == [True]
    counts = run.seat.links.counts()
    assert (counts.arrived, counts.on_the_way, counts.lost) == (2, 0, 0)
    assert (run.seat.deaths, run.seat.is_alive) == (0, False)
    run.turn()  # the old process may get calls before it is gone
    assert run.answer() == 0
    run.turn()
    run.answer(error="it died", is_gone=True)
    assert (run.seat.deaths, run.seat.is_alive) == (0, False)
    # The engine finds out about the new node with the first answer from there.
    run.host = hosts.Host(hosts.serials())
    run.turn()
    assert not run.engine.calls[-1][1][0][0].stop
    run.engine.leaving = False
    run.answer()
    run.start()
    run.host.act(0)
    run.turn()
    assert run.answer() == 1
    assert not run.host.ended


def test_a_node_that_ends_before_its_host_has_left_is_a_death():
    run = _Run()
    run.start()
    run.engine.leaving = True
    run.turn()
    run.answer(error="the node died")
    assert (run.seat.deaths, run.engine.kills) == (1, [])
    run.engine.leaving = False
    run.host = hosts.Host(hosts.serials())
    run.turn()
    run.answer()
    run.start()
    run.host.act(0)
    run.turn()
    assert not run.engine.calls[-1][1][0][0].stop
    assert run.answer() == 1


def test_a_host_that_has_not_begun_leaves_at_once():
    run = _Run()
    run.turn()
    run.answer()  # it is new
    run.engine.leaving = True
    calls = len(run.engine.calls)
    run.turn()
    assert (len(run.engine.calls), run.engine.kills) == (calls, [True])
    assert (run.seat.deaths, run.seat.is_alive) == (0, False)


def test_a_host_that_leaves_at_the_end_of_the_run_is_over():
    run = _Run()
    run.start()
    run.host.act(0)
    run.engine.leaving = True
    run.turn()
    run.turn(stop=True)
    run.answer()
    run.turn(stop=True)
    run.answer()
    assert run.seat.is_over
    assert True not in run.engine.kills


def test_after_a_move_a_host_that_never_starts_is_given_up():
    run = _Run(start_secs=10.0, max_failed_starts=3)
    run.start()
    run.engine.leaving = True
    run.turn()
    run.answer()
    assert run.engine.kills == [True]
    for _ in range(400):
        run.turn(secs=5.0)
        if run.seat.lost:
            break
        run.answer(error="it cannot be made", is_gone=True)
    assert run.seat.lost
    assert run.seat.deaths > 1
