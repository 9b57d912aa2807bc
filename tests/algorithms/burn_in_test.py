"""Burn-in: the core state after the rows of the trajectory before."""

import pytest
import torch

from impala_mp import nest, types
from impala_mp.algorithms import base, replay
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.workers import learner
from tests.support import builders, lockstep_runs

_LIVE = base.live_from_config(builders.config())
_CORES = {
    "lstm": {"network.core": "lstm"},
    "gru": {"network.core": "gru"},
    "gtrxl": {"network.core": "gtrxl", "network.core_size": 16},
    "inputs": {
        "network.core": "lstm",
        "network.last_action": True,
        "network.last_reward": True,
    },
}


def _make(**overrides):
    config = builders.config(
        **{
            "environment.id": "CartPole-v1",
            "unroll_length": 8,
            "replay.ratio": 0.5,
            "replay.burn_in": True,
            **overrides,
        },
    )
    environment = factory.make(config.environment, 1).spec
    torch.manual_seed(0)
    policy = agent.make(config, environment)
    batch = builders.random_batch(config, environment, policy)
    return learner.Learner(config, policy), batch


def _whole(batch):
    """The rows of each trajectory after those before it, as one of 2 T."""

    def joined(before, after):
        return torch.cat([before, after])

    before = batch.before
    time_step = nest.map_structure(joined, before.time_step, batch.time_step)
    action = joined(before.action, batch.agent_output.action)
    return time_step, action, before.core_state


@pytest.mark.parametrize("name", _CORES)
def test_the_state_is_that_of_one_long_unroll(name):
    made, batch = _make(**_CORES[name])
    there = batch.before.there
    assert there.any()
    assert not there.all()
    with torch.no_grad():
        output = made.unroll(batch)
        long = made.agent.unroll(*_whole(batch))
        without = made.unroll(batch._replace(before=()))
    for mine, whole, stored in zip(output, long, without, strict=True):
        torch.testing.assert_close(mine[:, there], whole[8:][:, there])
        torch.testing.assert_close(mine[:, ~there], stored[:, ~there])
        assert (mine - stored)[:, there].abs().max() > 1e-4  # the state matters


def test_no_gradient_flows_into_the_rows_before():
    made, batch = _make(**_CORES["lstm"])
    reward = batch.before.time_step.observation.requires_grad_()
    made.unroll(batch).baseline.sum().backward()
    assert reward.grad is None


@pytest.mark.parametrize("algorithm", ["impact", "dqn"])
def test_a_target_network_has_its_own_state(algorithm):
    fields = {"algorithm": algorithm, "target.period": 5, **_CORES["lstm"]}
    if algorithm == "dqn":
        fields |= {"replay.ratio": 0.0, "replay.reuse": 1.0}
    made, batch = _make(**fields)
    with torch.no_grad():
        kept = made.agent.unroll(*_whole(batch))
        made.parameters.trainable.add_(0.05)
        referred = made._algorithm.references([batch], made.unroll, _LIVE)
        own = getattr(referred[0], "output", referred[0])
        online = made.unroll(batch)
    there = batch.before.there
    torch.testing.assert_close(own.baseline[:, there], kept.baseline[8:][:, there])
    assert (online.baseline - own.baseline).abs().max() > 1e-3


@pytest.mark.parametrize("actors", [1, 3])
def test_the_state_is_the_actors_while_parameters_stay(tmp_path, monkeypatch, actors):
    """Trajectories of a real run follow on each other, over the ends of episodes."""
    compared = [0, 0]
    fill = replay.Replay.fill

    def checked(self, batch, sample):
        draw = fill(self, batch, sample)
        before = nest.map_structure(torch.from_numpy, batch.before)
        state = policy.state_after(before.time_step, before.action, before.core_state)
        there = before.there
        for mine, stored in zip(state, batch.core_state, strict=True):
            stored = torch.from_numpy(stored)
            torch.testing.assert_close(mine[there], stored[there].to(mine.dtype))
        compared[0] += int(there.sum())
        ends = (before.time_step.step_type == types.StepType.LAST).any(0)
        compared[1] += int((there & ends).sum())
        return draw

    made = agent.make

    def kept(*args):
        nonlocal policy
        policy = made(*args)
        return policy

    policy = None
    monkeypatch.setattr(agent, "make", kept)
    monkeypatch.setattr(replay.Replay, "fill", checked)
    lockstep_runs.train(
        tmp_path / "run",
        **{
            **lockstep_runs.VARIANTS["lstm"],
            "actors.count": actors,
            "actors.slots": 2,
            "total_agent_steps": 40 * 7 * 4,
            "optimizer.learning_rate": 1e-30,
            "replay.ratio": 0.5,
            "replay.burn_in": True,
        },
    )
    assert compared[0] > 60
    assert compared[1] > 20  # with the end of an episode in it
