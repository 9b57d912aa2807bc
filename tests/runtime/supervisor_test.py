"""Decisions of the supervisor, without a process."""

import pytest

from impala_mp.runtime import restart_policy, supervisor
from tests.support import builders


@pytest.fixture
def said():
    return []


@pytest.fixture
def watcher(tmp_path, said):
    config = builders.config(**{"health.max_deaths_without_progress": 6})
    shared = builders.shared(config, tmp_path)
    return supervisor.Supervisor(shared, str(tmp_path), said.append, lambda each: None)


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
    learner = watcher._learner
    for _ in range(5):
        _die(watcher, learner)
    with pytest.raises(supervisor.ChildFailed, match="without a finished update"):
        _die(watcher, learner)
