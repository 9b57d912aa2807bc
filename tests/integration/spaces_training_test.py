"""Every space through environment, slot, learner, checkpoint, evaluation, export."""

import math

import pytest

from impala_mp.evaluation import evaluate, export
from impala_mp.runtime import program
from impala_mp.storage import checkpoint, metrics
from tests.support import builders, spaces

pytestmark = pytest.mark.usefixtures("_without_pictures")


def _config(observation, action, **overrides):
    config = builders.config(
        **{
            "runtime.mode": "lockstep",
            "environment.id": "tests.support.spaces:Spaces-v0",
            "network.core": "lstm",
            "network.last_action": True,
            "total_agent_steps": 6 * 5 * 6,
            "evaluation.episodes": 4,
            "evaluation.environments": 2,
            "health.drift_interval": 1,
            "logging.interval_secs": 1e-9,
            **overrides,
        }
    )
    config.environment.kwargs = {"observation": observation, "action": action}
    return config


def _train(path, config):
    """The newest checkpoint and the last record of a whole training."""
    program.train(config, str(path))
    last = metrics.read(str(path))[-1]
    return checkpoint.load_newest(str(path / "checkpoints"), print), last


def _check(path, config):
    state, record = _train(path, config)
    assert state["learner"]["updates"] == 6
    assert record["health/updates_skipped"] == 0
    assert record["health/observations_outside"] == 0
    assert record["health/drift"] < 1e-4
    assert record["health/drift_alarms"] == 0
    assert all(
        math.isfinite(value)
        for key, value in record.items()
        if key.startswith(("loss/", "vtrace/"))
    )
    result = evaluate.evaluate(str(path), 4)
    assert result["episodes"] == 4
    assert 4.0 <= result["mean"] <= 8.0
    export.export(str(path), "torch", str(path / "policy.pt2"))  # compares rows
    assert (path / "policy.pt2").exists()


_MASK = {"agent.action_mask_key": "allowed"}


@pytest.mark.parametrize("observation", spaces.OBSERVATIONS)
def test_every_observation(tmp_path, observation):
    overrides = _MASK if observation == "masked" else {}
    normalised = {"network.normalise_observations": True, **overrides}
    _check(tmp_path, _config(observation, "discrete", **normalised))


@pytest.mark.parametrize("action", spaces.ACTIONS)
def test_every_action(tmp_path, action):
    _check(tmp_path, _config("box", action, **{"actors.temperature": 1.5}))


@pytest.mark.parametrize(
    "overrides",
    [
        {"algorithm": "impact", "learner.passes": 2},
        {"replay.ratio": 0.5, "replay.burn_in": True, "replay.clear_policy_cost": 0.1},
        {"learner.micro_batches": 3, "loss.popart": True},
        {"runtime.mode": "processes"},
        {
            "runtime.mode": "processes",
            "inference.mode": "server",
            "actors.environments": 2,
        },
    ],
    ids=["impact", "replay", "popart", "processes", "server"],
)
def test_nested_spaces_with_all_that_learns(tmp_path, overrides):
    config, folder = _config("dict", "dict", **overrides), tmp_path / "run"
    if config.runtime.mode == "processes":
        builders.train_in_processes(config, folder)
    else:
        program.train(config, str(folder))
    last = metrics.read(str(folder))[-1]
    assert last["agent_steps"] >= 180
    assert last["health/drift_alarms"] == 0
    assert last["health/updates_skipped"] == 0
    assert evaluate.evaluate(str(folder), 4)["episodes"] == 4
