"""Burn-in: the core state after the rows of the trajectory before."""

import json
import pathlib
import runpy

import pytest
import torch

from impala_mp import nest, types
from impala_mp.algorithms import base, replay
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.runtime import program
from impala_mp.workers import batch_parts, learner
from tests.support import builders, lockstep_runs

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_RECALL = str(_ROOT / "experiments" / "recall.py")
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
    batch.before.there[:2] = torch.tensor([True, False])
    return learner.Learner(config, policy), batch


def _whole(batch):
    """The rows of replayed trajectories after those before, as one of 2 T."""

    def joined(before, after):
        return torch.cat([before, after[:, -before.shape[1] :]])

    before = batch.before
    time_step = nest.map_structure(joined, before.time_step, batch.time_step)
    action = joined(before.action, batch.agent_output.action)
    return time_step, action, before.core_state


@pytest.mark.parametrize("name", _CORES)
def test_the_state_is_that_of_one_long_unroll(name):
    made, batch = _make(**_CORES[name])
    there = batch.before.there
    with torch.no_grad():
        output = made.unroll(batch)
        long = made.agent.unroll(*_whole(batch))
        without = made.unroll(batch._replace(before=()))
    for mine, whole, stored in zip(output, long, without, strict=True):
        count = len(mine[0]) - len(there)
        torch.testing.assert_close(mine[:, :count], stored[:, :count])
        mine, stored = mine[:, count:], stored[:, count:]
        torch.testing.assert_close(mine[:, there], whole[8:][:, there])
        torch.testing.assert_close(mine[:, ~there], stored[:, ~there])
        assert (mine - stored)[:, there].abs().max() > 1e-4  # the state matters


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_micro_batches_have_the_predecessors_of_their_columns(parts):
    made, batch = _make(**_CORES["inputs"])
    sample = types.Sample(*torch.ones(2, batch.shape[1]))
    with torch.no_grad():
        whole = made.unroll(batch)
        cut = [made.unroll(part) for part, _ in batch_parts.split(batch, sample, parts)]
    for each, *found in zip(whole, *cut, strict=True):
        torch.testing.assert_close(torch.cat(found, 1), each)


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
        own = referred[0].values if algorithm == "impact" else referred[0].baseline
        online = made.unroll(batch)
    there = batch.before.there
    mine = own[:, -len(there) :]
    torch.testing.assert_close(mine[:, there], kept.baseline[8:][:, there])
    assert (online.baseline - own).abs().max() > 1e-3


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
            stored = torch.from_numpy(stored[-len(there) :])
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


def _recall(path, **overrides):
    """Trains recall.py:r2d2 in one process; returns the final evaluation's mean."""
    config = runpy.run_path(_RECALL)["get_config"]("r2d2")
    config.update_from_flattened_dict(
        {
            "runtime.mode": "lockstep",
            "actors.count": 1,
            "total_agent_steps": 150_000,
            **overrides,
        }
    )
    program.train(config, str(path))
    with open(path / "evaluation.json") as file:
        return json.load(file)["greedy"]["mean"]


@pytest.mark.slow
def test_recall_needs_the_core_and_learns_with_its_state(tmp_path):
    assert _recall(tmp_path / "state") >= 0.95
    without = {"network.core": "none", "replay.burn_in": False}
    assert _recall(tmp_path / "none", **without) <= 0.4


@pytest.mark.slow
def test_recall_from_a_zero_state_is_learned_in_part(tmp_path, monkeypatch):
    """Two of three episodes begin in the trajectory before: 0.80 was measured."""
    fill = replay.Replay.fill

    def forgetful(self, batch, sample):
        draw = fill(self, batch, sample)
        batch.before.there[...] = False
        for leaf in batch.core_state:
            leaf[...] = 0
        return draw

    monkeypatch.setattr(replay.Replay, "fill", forgetful)
    assert _recall(tmp_path / "zero") <= 0.9


class StatelessCore(torch.nn.Linear):
    """A custom core that remembers nothing."""

    output_size, state_shapes = 16, ()

    def forward(self, inputs, first, state):
        return super().forward(inputs), state


def make_core(input_size, config):
    return StatelessCore(input_size, 16)


def test_a_core_without_a_state_needs_none():
    core = {"network.core": "tests.algorithms.burn_in_test:make_core"}
    made, batch = _make(**core)
    assert made.state_before(batch) == ()
    sample = types.Sample(*torch.ones(2, batch.shape[1]))
    assert torch.isfinite(made.update(batch, _LIVE, sample)).all()


def test_a_network_in_bfloat16_has_all_its_gradients():
    """Autocast keeps copies of weights; those of the rows before have no gradient."""
    made, batch = _make(**_CORES["lstm"], **{"learner.precision": "bfloat16"})
    made.unroll(batch).baseline.sum().backward()
    network = made.agent.network
    gradients = {n: p.grad.abs().max() for n, p in network.named_parameters()}
    assert {n for n, size in gradients.items() if not size} <= {
        "policy.weight",
        "policy.bias",
    }
