"""One process, deterministic: the same seed, the same run, stopped or not."""

import errno
import json
import os
import time

import gymnasium
import numpy as np
import pytest
import torch

from impala_mp import config as config_lib
from impala_mp.environments import catch
from impala_mp.monitoring import health
from impala_mp.runtime import launch, lockstep, program, signals, streams
from impala_mp.storage import checkpoint, metrics
from impala_mp.workers import learner_loop


def _config(**overrides):
    config = config_lib.get_base_config()
    config.runtime.mode = "lockstep"
    config.environment.id = "Catch"
    config.actors.environments = 4
    config.actors.count = 3
    config.batch_size = 8
    config.unroll_length = 7
    config.total_agent_steps = 40 * 7 * 8
    config.evaluation.episodes = 5
    config.learner.threads = 1
    config.update_from_flattened_dict(overrides)
    return config


def _train(path, **overrides):
    program.train(_config(**overrides), str(path))
    return checkpoint.load_newest(str(path / "checkpoints"), print)


def _assert_same(a, b, where="state"):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


_LEARNED = ("learner", "actors", "next_actor", "episodes")

_VARIANTS = {
    "mlp": {},
    "lstm": {
        "environment.id": "Recall",
        "network.core": "lstm",
        "network.core_size": 8,
        "network.last_action": True,
        "network.last_reward": True,
    },
    "cartpole": {"environment.id": "CartPole-v1"},
    "delayed": {"actors.policy_delay": 5},
    "impact": {
        "algorithm": "impact",
        "target.period": 3,
        "learner.passes": 2,
        "learner.micro_batches": 2,
        "impact.kl_cost": 0.1,
    },
    "polyak": {"algorithm": "impact", "target.period": 2, "target.polyak": 0.5},
    "popart": {"loss.popart": True, "loss.popart_beta": 0.1, "loss.baseline": "huber"},
}


@pytest.mark.parametrize("name", _VARIANTS)
def test_the_same_seed_gives_the_same_run(tmp_path, name):
    first = _train(tmp_path / "a", **_VARIANTS[name])
    second = _train(tmp_path / "b", **_VARIANTS[name])
    other = _train(tmp_path / "c", seed=1, **_VARIANTS[name])
    for key in _LEARNED:
        _assert_same(first[key], second[key], key)
    with pytest.raises(AssertionError):
        _assert_same(first["learner"], other["learner"])


@pytest.mark.parametrize("name", _VARIANTS)
def test_stopping_and_going_on_equals_never_having_stopped(tmp_path, name):
    # A constant learning rate: extending a run stretches a linear schedule.
    same = {"optimizer.schedule": "constant", **_VARIANTS[name]}
    whole = _train(tmp_path / "whole", **same)
    for updates in (13, 14, 40):
        steps = updates * 7 * 8
        parts = _train(tmp_path / "parts", total_agent_steps=steps, **same)
        assert parts["learner"]["updates"] == updates
    for key in _LEARNED:
        _assert_same(whole[key], parts[key], key)


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


@pytest.mark.parametrize("slots", [1, 2])
def test_bad_data_overruns_no_ring(tmp_path, slots):
    Spoiling.steps = 0
    spoiling = {"environment.id": "Spoiling-v0", "actors.slots": slots}
    state = _train(tmp_path / "run", **spoiling, **{"batch_size": 12})
    assert state["learner"]["agent_steps"] >= 40 * 7 * 8
    last = metrics.read(str(tmp_path / "run"))[-1]
    assert last["health/bad_data"] > 10
    assert last["health/committed"] == last["health/learned"] + last["health/in_flight"]


def _full(*unused, **others):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_last_checkpoint_that_is_lost_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learner_loop.checkpoint, "save", _full)
    with pytest.raises(learner_loop.NotSaved, match="since update -1 is lost"):
        program.train(_config(), str(tmp_path / "run"))
    monkeypatch.setattr(signals, "exit_on_signals", lambda leave: None)
    monkeypatch.setattr(streams, "survive_errors", lambda: None)
    assert launch.train(_config(), str(tmp_path / "other"), 0) == 1
    out, err = capsys.readouterr()
    assert "impala-train: the last checkpoint could not be written" in err
    assert "Traceback" not in out + err
    assert "Final evaluation" not in out


def _state(path):
    (process,) = json.loads((path / "health.json").read_text())["processes"]
    assert (process["role"], process["pid"]) == ("lockstep", os.getpid())
    return process["state"]


@pytest.mark.parametrize("uptime_secs", [1.0, 1e6])
@pytest.mark.parametrize("tick_secs", [0.0, 3600.0])
def test_its_one_process_is_in_health_json(
    tmp_path, monkeypatch, tick_secs, uptime_secs
):
    """At the start, at the end, and every few seconds, whenever records are due."""
    monkeypatch.setattr(lockstep, "_TICK_SECS", tick_secs)
    booted, real = time.monotonic() - uptime_secs, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() - booted)
    step, seen = learner_loop.LearnerLoop.step, []

    def spy(self):
        if (tmp_path / "health.json").exists():
            seen.append(_state(tmp_path))
            os.remove(tmp_path / "health.json")
        step(self)

    monkeypatch.setattr(learner_loop.LearnerLoop, "step", spy)
    program.train(_config(**{"logging.interval_secs": 3600.0}), str(tmp_path))
    assert seen == ["running"] * (1 if tick_secs else 39)
    assert _state(tmp_path) == "finished"
    report = health.read(str(tmp_path))
    assert report.healthy
    assert not report.running


def test_a_failure_is_in_health_json(tmp_path, monkeypatch):
    monkeypatch.setattr(learner_loop.LearnerLoop, "step", _full)
    with pytest.raises(OSError, match="No space"):
        program.train(_config(), str(tmp_path))
    assert _state(tmp_path) == "failed"
    assert not health.read(str(tmp_path)).healthy


def test_a_profile_is_of_everyone(tmp_path):
    program.train(_config(), str(tmp_path), profile_updates=3)
    trace = json.loads((tmp_path / "profiles" / "lockstep.json").read_text())
    assert any("aten::" in event["name"] for event in trace["traceEvents"])
