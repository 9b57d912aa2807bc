"""One process, deterministic: the same seed, the same run, stopped or not."""

import errno
import json
import os
import time

import gymnasium
import numpy as np
import pytest

from impala_mp.environments import catch
from impala_mp.monitoring import status
from impala_mp.runtime import launch, lockstep, program, signals, streams
from impala_mp.storage import metrics
from impala_mp.workers import learner_loop, learner_metrics
from tests.support import live_changes, lockstep_runs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_without_pictures")]


_QUICK = ("mlp", "globals")  # a resumed run shows the same of all variants


@pytest.mark.parametrize(
    "name",
    [
        name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in lockstep_runs.VARIANTS
    ],
)
def test_the_same_seed_gives_the_same_run(tmp_path, name):
    first = lockstep_runs.train(tmp_path / "a", **lockstep_runs.VARIANTS[name])
    second = lockstep_runs.train(tmp_path / "b", **lockstep_runs.VARIANTS[name])
    other = lockstep_runs.train(tmp_path / "c", seed=1, **lockstep_runs.VARIANTS[name])
    for key in lockstep_runs.LEARNED:
        lockstep_runs.assert_same(first[key], second[key], key)
    with pytest.raises(AssertionError):
        lockstep_runs.assert_same(first["learner"], other["learner"])


@pytest.mark.parametrize("name", lockstep_runs.VARIANTS)
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, name):
    # A constant learning rate: extending a run stretches a linear schedule.
    same = {"optimizer.schedule": "constant", **lockstep_runs.VARIANTS[name]}
    whole = lockstep_runs.train(tmp_path / "whole", **same)
    for updates in (13, 14, 40):
        steps = updates * 7 * 8
        parts = lockstep_runs.train(tmp_path / "parts", total_agent_steps=steps, **same)
        assert parts["learner"]["updates"] == updates
    for key in lockstep_runs.LEARNED:
        lockstep_runs.assert_same(whole[key], parts[key], key)


def test_a_run_with_bad_data_resumes_bit_for_bit(tmp_path):
    """Each restart of the environments has the seeds that it would have had."""
    same = {"optimizer.schedule": "constant", "environment.id": "Counting-v0"}
    whole = lockstep_runs.train(tmp_path / "whole", **same)
    for updates in (13, 30, 40):
        steps = updates * 7 * 8
        parts = lockstep_runs.train(tmp_path / "parts", total_agent_steps=steps, **same)
    assert metrics.read(str(tmp_path / "parts"))[-1]["health/bad_data"] > 5
    for key in lockstep_runs.LEARNED:
        lockstep_runs.assert_same(whole[key], parts[key], key)


def test_a_learner_that_never_waits_gets_an_unroll_for_each_update(tmp_path):
    free = {**lockstep_runs.VARIANTS["dqn"], "replay.reuse": float("inf")}
    same = {"optimizer.schedule": "constant", **free}
    unroll = 7 * 4
    whole = lockstep_runs.train(tmp_path / "a", total_agent_steps=40 * unroll, **same)
    assert whole["learner"]["agent_steps"] == 40 * unroll
    assert whole["learner"]["updates"] == 40 - 1  # the first two fill the replay
    for unrolls in (15, 40):
        steps = unrolls * unroll
        parts = lockstep_runs.train(tmp_path / "b", total_agent_steps=steps, **same)
    for key in lockstep_runs.LEARNED:
        lockstep_runs.assert_same(whole[key], parts[key], key)


class Spoiling(catch.CatchVectorEnv):
    """Every tenth reward or so is not a number, at first."""

    steps = 0
    rng = np.random.default_rng(0)

    def step(self, actions):
        observation, reward, *rest = super().step(actions)
        Spoiling.steps += 1
        if Spoiling.steps < 400 and Spoiling.rng.random() < 0.1:
            reward = reward * np.nan
        return observation, reward, *rest


gymnasium.register("Spoiling-v0", vector_entry_point=Spoiling)


class Counting(catch.CatchVectorEnv):
    """Every seventieth reward or so is not a number; the count is part of the state."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps = 0

    def step(self, actions):
        observation, reward, *rest = super().step(actions)
        self.steps += 1
        return observation, reward * (np.nan if self.steps % 70 == 0 else 1), *rest


gymnasium.register("Counting-v0", vector_entry_point=Counting)


@pytest.mark.parametrize("slots", [1, 2])
def test_bad_data_overruns_no_ring(tmp_path, slots):
    Spoiling.steps = 0
    spoiling = {"environment.id": "Spoiling-v0", "actors.slots": slots}
    state = lockstep_runs.train(tmp_path / "run", **spoiling, **{"batch_size": 12})
    assert state["learner"]["agent_steps"] >= 40 * 7 * 8
    last = metrics.read(str(tmp_path / "run"))[-1]
    assert last["health/bad_data"] > 10
    assert last["health/committed"] == last["health/learned"] + last["health/in_flight"]


def _full(*unused, **others):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_last_checkpoint_that_is_lost_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learner_loop.checkpoint_writer.checkpoint, "save", _full)
    with pytest.raises(learner_loop.NotSaved, match="Updates since update -1 are lost"):
        program.train(lockstep_runs.config(), str(tmp_path / "run"))
    monkeypatch.setattr(signals, "exit_on_signals", lambda leave: None)
    monkeypatch.setattr(streams, "survive_errors", lambda: None)
    assert launch.train(lockstep_runs.config(), str(tmp_path / "other"), 0) == 1
    out, err = capsys.readouterr()
    assert "impala-train: the last checkpoint could not be written" in err
    assert "Traceback" not in out + err
    assert "Final evaluation" not in out


def _state(path):
    (process,) = json.loads((path / "health.json").read_text())["processes"]
    assert (process["role"], process["pid"]) == ("lockstep", os.getpid())
    return process["state"]


@pytest.mark.parametrize("uptime_secs", [1.0, 1e6])
@pytest.mark.parametrize(
    ("tick_secs", "records"), [(0.0, 1), (3600.0, 1), (3600.0, 200)]
)
def test_its_one_process_is_in_health_json(
    tmp_path, monkeypatch, tick_secs, records, uptime_secs
):
    """At the start, at the end, every few seconds, and with each record."""
    monkeypatch.setattr(lockstep, "_TICK_SECS", tick_secs)
    monkeypatch.setattr(learner_metrics, "_RECORDS", records)
    booted, real = time.monotonic() - uptime_secs, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() - booted)
    step, seen = learner_loop.LearnerLoop.step, []

    def spy(self):
        if (tmp_path / "health.json").exists():
            seen.append(_state(tmp_path))
            os.remove(tmp_path / "health.json")
        step(self)

    monkeypatch.setattr(learner_loop.LearnerLoop, "step", spy)
    program.train(
        lockstep_runs.config(**{"logging.interval_secs": 3600.0}), str(tmp_path)
    )
    # The first record comes before the second update, if by progress it is the last.
    few = tick_secs > 0.0 and records == 1
    assert seen == ["running"] * (2 if few else 39)
    assert _state(tmp_path) == "finished"
    report = status.read(str(tmp_path))
    assert report.healthy
    assert not report.running


def test_a_failure_is_in_health_json(tmp_path, monkeypatch):
    monkeypatch.setattr(learner_loop.LearnerLoop, "step", _full)
    with pytest.raises(OSError, match="No space"):
        program.train(lockstep_runs.config(), str(tmp_path))
    assert _state(tmp_path) == "failed"
    assert not status.read(str(tmp_path)).healthy


def test_a_profile_contains_actors_and_learner(tmp_path):
    program.train(lockstep_runs.config(), str(tmp_path), profile_updates=3)
    trace = json.loads((tmp_path / "profiles" / "lockstep.json").read_text())
    assert any("aten::" in event["name"] for event in trace["traceEvents"])


def test_lockstep_with_schedules_repeats_and_resumes_bit_for_bit(tmp_path):
    whole = lockstep_runs.train(tmp_path / "whole", **live_changes.SCHEDULES)
    for updates in (13, 14, 40):
        steps = updates * 7 * 8
        parts = lockstep_runs.train(
            tmp_path / "parts", total_agent_steps=steps, **live_changes.SCHEDULES
        )
    plain = lockstep_runs.train(
        tmp_path / "plain", **{**live_changes.SCHEDULES, "schedules.epsilon": ""}
    )
    for key in lockstep_runs.LEARNED:
        lockstep_runs.assert_same(whole[key], parts[key], key)
    with pytest.raises(AssertionError):
        lockstep_runs.assert_same(whole["learner"], plain["learner"])
