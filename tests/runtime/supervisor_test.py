"""Decisions of the supervisor, without a process."""

import contextlib
import os
import time
import types

import pytest

from impala_mp import errors
from impala_mp.runtime import (
    entry_points,
    host_supervisor,
    restart_policy,
    supervisor,
)
from impala_mp.transport import control_block
from tests.support import builders, populations


@pytest.fixture
def said():
    return []


@pytest.fixture
def watcher(tmp_path, said):
    config = builders.config(**{"health.max_deaths_without_progress": 6})
    shared = builders.shared(config, tmp_path)
    return supervisor.Supervisor(
        [shared], str(tmp_path), said.append, lambda each: None
    )


def _actors(watcher):
    return [each for each in watcher._children if each.seat.role == "actor"]


def _die(watcher, child):
    child.record_death("ended with exit code 1", lived_secs=5.0, was_running=True)
    watcher._restart_or_give_up(child)


def _finish(child):
    child._finished_before = child.row.get("finished")
    child.row.add("finished", 1)


def test_a_restart_is_reported_with_its_cause_and_its_log(watcher, said):
    first, _ = _actors(watcher)
    _die(watcher, first)
    assert "ended with exit code 1; restart in" in said[-1]
    assert said[-1].endswith(f"See {first.log}.")


def _fail(watcher, child, error):
    child.error = error
    _die(watcher, child)


def test_the_same_error_of_all_actors_ends_a_run_that_has_learned_nothing(watcher):
    first, second = _actors(watcher)
    with open(second.log, "w") as file:
        file.write(
            "Traceback (most recent call last):\n"
            f'  File "{supervisor.__file__}", line 1, in run\n    ours()\n'
            '  File "/home/me/game.py", line 7, in step\n    1 / 0\n    ~~^~~\n'
            "ZeroDivisionError: by 3\nCause: ZeroDivisionError\n"
        )
    _fail(watcher, first, "ZeroDivisionError: by 2 (/home/me/game.py:7, in step)")
    error = "ZeroDivisionError: by 3 (/home/me/game.py:7, in step)"
    with pytest.raises(supervisor.ChildFailed) as caught:
        _fail(watcher, second, error)
    assert str(caught.value).endswith(
        f"(log: {second.log}):\n"
        '  File "/home/me/game.py", line 7, in step\n    1 / 0\n    ~~^~~\n'
        "ZeroDivisionError: by 3"
    )


@pytest.mark.parametrize(
    ("errors", "learned"),
    [
        (("A: x (g.py:1, in f)", "B: x (g.py:1, in f)"), 0),
        (("A: x (g.py:1, in f)", "A: x (g.py:2, in f)"), 0),
        (("", ""), 0),  # killed
        (("A: x (g.py:1, in f)",) * 2, 6),
    ],
)
def test_other_deaths_are_restarted(watcher, errors, learned):
    watcher._shared.control.books[0].add("learned", learned)
    for child, error in zip(_actors(watcher), errors, strict=True):
        _fail(watcher, child, error)


def test_what_a_run_had_learned_before_it_was_resumed_does_not_count(tmp_path, said):
    shared = builders.shared(builders.config(), tmp_path)
    shared.control.books[0].set("learned", 600)
    watcher = supervisor.Supervisor(
        [shared], str(tmp_path), said.append, lambda each: None
    )
    first, second = _actors(watcher)
    _fail(watcher, first, "A: x (g.py:1, in f)")
    with pytest.raises(supervisor.ChildFailed, match="before the first update"):
        _fail(watcher, second, "A: x (g.py:1, in f)")


def _refuse(watcher, child):
    """Lets a child end with bad input, before it does anything."""
    with open(child.log, "w") as file:
        file.write("Cause: the game is not registered.\n")
    child._log_start = 0
    child.row.beat(control_block.State.STARTING)
    code = entry_points.BAD_INPUT
    child.process = types.SimpleNamespace(exitcode=code, close=lambda: None)
    watcher._reap(child)


def test_bad_input_ends_a_run_before_its_first_update(watcher):
    for child in watcher._children:
        with pytest.raises(errors.BadInput, match="^the game is not registered"):
            _refuse(watcher, child)


def test_bad_input_of_a_restarted_child_is_a_failed_start(tmp_path, said):
    """The user's code may be replaced just then, or its file system be away."""
    overrides = {"evaluation.during_training": True, "health.max_failed_starts": 3}
    config = builders.config(**overrides)
    shared = builders.shared(config, tmp_path)
    watcher = supervisor.Supervisor(
        [shared], str(tmp_path), said.append, lambda each: None
    )
    shared.control.books[0].add("learned", 6)
    first, second = _actors(watcher)
    (learner,) = watcher._learners
    (evaluator,) = (x for x in watcher._children if x.seat.role == "evaluator")
    with pytest.raises(errors.BadInput, match="not registered"):
        _refuse(watcher, first)  # which has never run
    for child in watcher._children:
        child.has_run, child.policy.failed_starts = True, 0
    said.clear()
    for child in (learner, evaluator, first):
        _refuse(watcher, child)
        assert isinstance(child.verdict, restart_policy.Wait)
        assert child.policy.failed_starts == 1
    assert said[0].startswith("the game is not registered. (learner; logs/learner")
    for child in (evaluator, first):
        for _ in range(2):
            _refuse(watcher, child)
        assert child.lost
    assert "CONTINUES WITHOUT EVALUATIONS" in said[-2]
    assert "failed to start 3 times in a row" in said[-1]
    assert "CONTINUES WITH 1 ACTORS" in said[-1]
    for _ in range(2):
        _refuse(watcher, second)
    with pytest.raises(supervisor.ChildFailed, match="the game is not registered"):
        _refuse(watcher, second)
    receiver = types.SimpleNamespace(
        seat=types.SimpleNamespace(role="receiver"), has_run=True
    )
    assert watcher._is_final(receiver)  # it refuses only hosts that never came


def test_the_run_stops_once_no_actor_finishes_anything(watcher, said):
    first, second = _actors(watcher)
    with open(first.log, "w") as file:
        file.write("ValueError: my simulator is broken")
    for child in (first, first, second, first, second):
        _die(watcher, child)
    with pytest.raises(supervisor.ChildFailed) as caught:
        _die(watcher, first)
    assert "the actors died 6 times in a row without a finished unroll" in str(
        caught.value
    )
    assert "ValueError: my simulator is broken" in str(caught.value)
    assert len(said) == 5


def test_the_run_continues_while_any_actor_finishes_unrolls(watcher):
    first, second = _actors(watcher)
    for _ in range(4):
        _die(watcher, first)
        _finish(second)
        _die(watcher, second)
        _finish(second)
        second._finished_before = second.row.get("finished") - 1
    assert isinstance(first.verdict, restart_policy.Wait)


def test_an_actor_that_never_finishes_an_unroll_is_given_up(watcher, said):
    first, second = _actors(watcher)
    _finish(second)
    for _ in range(6):
        _die(watcher, first)
    assert first.lost
    assert "died 6 times in a row without a finished unroll" in said[-1]
    assert "CONTINUES WITH 1 ACTORS" in said[-1]


def test_one_death_of_each_of_many_is_no_reason_to_stop(watcher):
    """As when the fork server is killed."""
    watcher._health.max_deaths_without_progress = 2
    for child in _actors(watcher):
        _die(watcher, child)


def test_a_learner_that_never_finishes_an_update_ends_the_run(watcher):
    (learner,) = watcher._learners
    for _ in range(5):
        _die(watcher, learner)
    with pytest.raises(supervisor.ChildFailed, match="without a finished update"):
        _die(watcher, learner)


@pytest.fixture
def running(watcher, monkeypatch):
    """All children, alive and with a heartbeat."""
    for child in watcher._children:
        child.process = types.SimpleNamespace(pid=os.getpid(), is_alive=lambda: True)
        child.row.beat(control_block.State.RUNNING)
    return watcher._children


def _pass_time(children, secs, *, watcher=None):
    """Lets time pass without a heartbeat, and with `watcher` without the supervisor."""
    for child in children:
        beat = child.row.get("heartbeat_ns") - int(secs * 1e9)
        child.row.set("heartbeat_ns", beat)
        child._excused = (beat, child._excused[1])
    if watcher:
        watcher._noticed_at -= secs


def _attend(watcher):
    for child in watcher._children:
        watcher._attend(child)
    return sum(bool(child._hung) for child in watcher._children)


def test_a_pause_of_the_whole_run_is_no_hang(watcher, running, said):
    watcher._notice_pause()
    _pass_time(running, 1000.0, watcher=watcher)  # it ended within this round
    assert _attend(watcher) == 0
    _pass_time(running, 1000.0, watcher=watcher)  # it ended during a wait
    assert watcher._wait_for([], time.monotonic()) > 900.0
    assert _attend(watcher) == 0
    assert {child.describe() for child in running} == {"running"}
    assert said == []


def test_a_child_that_is_silent_alone_hangs_also_after_a_pause(watcher, running):
    first, *_ = running
    limit = watcher._health.hang_secs
    watcher._notice_pause()
    _pass_time(running, 1000.0, watcher=watcher)
    assert _attend(watcher) == 0
    _pass_time([first], limit - 5.0)
    assert _attend(watcher) == 0
    _pass_time([first], 10.0)
    assert _attend(watcher) == 1
    assert f"was silent for {limit + 5:.0f} s" in first._hung


def test_a_pause_does_not_shorten_the_end(watcher, running, monkeypatch, said):
    """The deadline moves by the length of the pause."""
    watcher._shared.config.shutdown.deadline_secs = 0.5
    waits, now = [], [0.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(supervisor, "time", clock)

    def wait_for(sentinels, due):
        waits.append(due)
        if len(waits) > 3:
            for child in running:
                child.process.is_alive = lambda: False
        now[0] += 0.3
        return 0.3  # all of it was a pause

    monkeypatch.setattr(watcher, "_wait_for", wait_for)
    for child in running:
        child.process.sentinel = child.process.exitcode = 0
        child.process.join = child.process.close = lambda: None
    watcher._end_all()
    assert len(waits) == 4
    assert said == []


def test_a_run_does_without_its_evaluator(tmp_path, said):
    config = builders.config(
        **{"health.max_deaths_without_progress": 3, "evaluation.during_training": True}
    )
    shared = builders.shared(config, tmp_path)
    watcher = supervisor.Supervisor(
        [shared], str(tmp_path), said.append, lambda _: None
    )
    (child,) = (x for x in watcher._children if x.seat.role == "evaluator")
    for _ in range(20):
        if not child.lost:
            _die(watcher, child)
    assert child.lost
    assert "THE RUN CONTINUES WITHOUT EVALUATIONS" in said[-1]


def test_each_member_of_a_population_needs_its_actors(tmp_path, said):
    with contextlib.closing(populations.Parts(tmp_path)) as parts:
        watcher = supervisor.Supervisor(
            parts.shared, str(tmp_path), said.append, lambda each: None
        )
        seats = parts.shared[0].topology.actors
        assert watcher._are_enough(seats)
        assert not watcher._are_enough(seats[1:])


def test_a_host_goes_on_with_one_actor_that_fills_no_batch_of_the_learner(
    tmp_path, said
):
    config = builders.config(**{"batch_size": 12, "actors.slots": 2})
    shared = builders.shared(config, tmp_path)
    seats = shared.topology.actors
    at_the_learner = supervisor.Supervisor(
        [shared], str(tmp_path), said.append, lambda _: None
    )
    assert not at_the_learner._are_enough(seats[:1])
    watcher = host_supervisor.HostSupervisor([shared], str(tmp_path), said.append)
    assert watcher._are_enough(seats[:1])
    assert not watcher._are_enough(())
