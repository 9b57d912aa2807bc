"""Supervision of several processes that learn: each dies alone."""

import contextlib
import os
import types

import pytest

from impala_mp import errors
from impala_mp.algorithms import cuda
from impala_mp.config import validation
from impala_mp.environments import members
from impala_mp.runtime import (
    entry_points,
    learner_groups,
    preflight,
    program,
    resources,
    restart_policy,
    supervisor,
)
from impala_mp.transport import topology
from impala_mp.workers import builders
from tests.support import policy_parts


@pytest.fixture
def said():
    return []


@pytest.fixture
def watcher(tmp_path, said):
    config = policy_parts.config(
        **{"runtime.mode": "processes", "learner.processes": 2}
    )
    config.health.max_deaths_without_progress = 3
    shared = policy_parts.shared(config, tmp_path)
    return supervisor.Supervisor(shared, str(tmp_path), said.append, lambda each: None)


def _die(watcher, child):
    child.record_death("was killed by SIGKILL", lived_secs=5.0, was_running=True)
    watcher._restart_or_give_up(child)


def test_a_death_leaves_the_other_learner_and_its_budget(watcher, said):
    first, second = watcher._learners
    ended = []
    first.end_with = second.end_with = ended.append
    for _ in range(2):
        _die(watcher, first)
    assert ended == []
    assert (first.deaths, second.deaths) == (2, 0)
    assert first.policy is not second.policy
    assert "learner 0 (incarnation -1) was killed by SIGKILL; restart in" in said[-1]
    for _ in range(2):
        _die(watcher, second)
    assert isinstance(second.verdict, restart_policy.Wait)


@pytest.mark.parametrize("number", [0, 1])
def test_a_spent_budget_of_one_ends_the_run(watcher, number):
    child = watcher._learners[number]
    for _ in range(2):
        _die(watcher, child)
    with pytest.raises(supervisor.ChildFailed, match=f"learner {number} .* 3 times"):
        _die(watcher, child)


def _ended(code):
    return types.SimpleNamespace(
        exitcode=code,
        sentinel=0,
        close=lambda: None,
        is_alive=lambda: False,
        join=lambda *_: None,
    )


def _reap(watcher, child, code):
    child.process = _ended(code)
    watcher._reap(child)


def test_the_run_is_finished_when_all_learners_are(watcher):
    first, second = watcher._learners
    _reap(watcher, second, 0)
    assert second.done
    assert not watcher._is_finished()
    _reap(watcher, first, 0)
    assert watcher._is_finished()


@pytest.mark.parametrize("number", [0, 1])
def test_a_refusal_of_one_ends_the_run(watcher, number):
    with pytest.raises(errors.BadInput):
        _reap(watcher, watcher._learners[number], entry_points.BAD_INPUT)


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        ((0, 0), ""),
        ((entry_points.NOT_SAVED, 0), "learner-0.log). What was learned"),
        ((0, entry_points.NOT_SAVED), "learner-1.log). What was learned"),
        ((1, entry_points.NOT_SAVED), "learner-1.log). What was learned"),
        ((1, 0), "the learner 0 ended with exit code 1 when it was asked to stop"),
        ((0, -9), "the learner 1 was killed by SIGKILL when it was asked to stop"),
    ],
)
def test_the_end_of_each_learner_counts(watcher, monkeypatch, codes, text):
    """Also that of one which is not the last."""
    for child, code in zip(watcher._learners, codes, strict=True):
        child.process = _ended(code)
    monkeypatch.setattr(watcher, "_wait_for", lambda *unused: 0.0)
    watcher._end_all()
    found = learner_groups.failure(watcher._last_codes)
    assert text in found
    assert bool(text) == bool(found)


def test_the_stop_is_reported_for_each(watcher, said):
    first, second = watcher._learners
    first.process = second.process = _ended(0)
    watcher._report_stop()
    assert said[-1] == ("Stopping on request: the learners write their checkpoints.")
    second.process, second.reason = None, "was killed by SIGKILL"
    watcher._report_stop()
    assert said[-1] == (
        "Stopping on request: the learners write their checkpoints. learner 1"
        " (incarnation -1) was killed by SIGKILL before. Its newest checkpoint stays"
        " the newest."
    )
    first.process, first.reason = None, "was killed by SIGSEGV"
    watcher._report_stop()
    assert said[-1].startswith("Stopping on request. learner 0 (incarnation -1) was")


def test_each_process_has_its_cores_and_is_named():
    plan = resources.plan([0, 1, 2, 3, 4], 1, 1, 2, 0, 2)
    assert plan.learners == ((0, 1), (2, 3))
    assert plan.actors == ((4,),)
    assert resources.explain_cores(plan, 2) == (
        "Cores: the learner, 2 processes, has cores 0 to 3, and 1 actors core 4."
    )
    seats = topology.make(1, num_policies=3, num_groups=2)
    assert resources.explain_processes(seats, ["a", "b", "c"]) == (
        "Learner: 2 processes; process 0 learns a, c, process 1 learns b."
    )
    assert resources.explain_processes(topology.make(1, num_policies=2), "ab") == ""
    assert resources.explain_processes(topology.make(2, num_ranks=2), ("",)) == ""


class _Stop(Exception):
    pass


def test_each_process_takes_its_cores(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    overrides = {"runtime.mode": "processes", "learner.processes": 0}
    config = policy_parts.config(**overrides, **{"learner.threads": 2})
    shared = policy_parts.shared(config, tmp_path, range(8))
    described = " ".join(filter(None, program._described(shared)))
    placed = (
        "Cores: the learner, 2 processes, has cores 0 to 3, and 3 actors cores 4 to 6."
        " Learner: 2 processes; process 0 learns player_0, process 1 learns player_1."
    )
    assert placed in described
    assert preflight.check(policy_parts.config(**overrides), None)
    assert "process 1 learns player_1" in capsys.readouterr().out
    taken = []

    def stop(*unused):
        raise _Stop

    monkeypatch.setattr(resources, "take_cores", taken.append)
    monkeypatch.setattr(builders, "make_learner", stop)
    for seat in shared[0].topology.learners:
        with pytest.raises(_Stop):
            entry_points._learn(seat, 0, shared, contextlib.ExitStack())
    assert taken == [(0, 1), (2, 3)]


_SPREAD = {"runtime.mode": "processes", "learner.processes": 0}


def _prepared(own, **overrides):
    config = policy_parts.config(**{**_SPREAD, **overrides})
    config.policies = own
    live = validation.validate(config, 2)
    return program.prepare(config, live, members.probe(config), 2)


def test_each_policy_has_its_device(monkeypatch):
    monkeypatch.setattr(resources, "_num_gpus", lambda: 2)
    first = {"learner": {"device": "cuda:0", "cuda_graph": True}}
    second = {"learner": {"device": "cuda:1"}}
    policies, _ = _prepared({"player_0": first, "player_1": second})
    learners = [each.config.learner for each in policies]
    assert [each.device for each in learners] == ["cuda:0", "cuda:1"]
    assert [each.cuda_graph for each in learners] == [True, False]


def test_an_automatic_device_of_a_policy_is_chosen_by_its_network(monkeypatch):
    monkeypatch.setattr(resources, "_num_gpus", lambda: 1)
    monkeypatch.setattr(resources, "_GPU_PARAMETERS", 10_000)
    own = {"learner": {"device": "auto"}}
    sizes = ({"torso": "mlp", "hidden_sizes": (n,)} for n in (8, 1000))
    small, wide = ({**own, "network": each} for each in sizes)
    policies, chosen = _prepared(
        {"player_0": small, "player_1": wide}, **{"learner.device": "cpu"}
    )
    assert [each.config.learner.device for each in policies] == ["cpu", "cuda"]
    assert any(
        each.startswith("Policy 'player_1': learner.device = cuda (auto): the network")
        for each in chosen
    )


@pytest.mark.parametrize(
    ("processes", "device", "text"),
    [
        (
            0,
            "cuda:3",
            r"policy 'player_1': learner.device \('cuda:3'\) is not available",
        ),
        (0, "tpu", "policy 'player_1': learner.device"),
        (0, "auto", "policy 'player_1': learner.cuda_graph needs a GPU.*'cpu'"),
        (1, "cuda", "'player_0' and 'player_1' are learned by one process"),
    ],
)
def test_a_device_of_a_policy_is_checked(monkeypatch, processes, device, text):
    monkeypatch.setattr(resources, "_num_gpus", lambda: 1)
    overrides = {"learner.processes": processes, "learner.device": "cpu"}
    with pytest.raises(errors.BadInput, match=text):
        _prepared(
            {
                "player_1": {
                    "learner": {"device": device, "cuda_graph": device != "tpu"}
                }
            },
            **overrides,
        )


def test_each_process_takes_the_device_of_its_policies(monkeypatch, tmp_path):
    shared = policy_parts.shared(policy_parts.config(**_SPREAD), tmp_path)
    for number, each in enumerate(shared):
        each.config.learner.device = f"cuda:{number}"
    taken = []

    def take(device):
        taken.append(device)
        raise _Stop

    monkeypatch.setattr(resources, "take_cores", lambda cores: None)
    monkeypatch.setattr(cuda, "take_device", take)
    for seat in shared[0].topology.learners:
        with pytest.raises(_Stop):
            entry_points._learn(seat, 0, shared, contextlib.ExitStack())
    assert taken == ["cuda:0", "cuda:1"]
