"""The loss of replayed trajectories against a naive twin in float64."""

import copy

import numpy as np
import pytest
import torch

from impala_mp import nest, types
from impala_mp.algorithms import base
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.workers import learner
from tests.support import builders, vtrace_twin

_LIVE = base.live_from_config(builders.config())
_LSTM = {"network.core": "lstm", "network.last_action": True, "replay.burn_in": True}
_CLEAR = {"replay.clear_policy_cost": 0.3, "replay.clear_value_cost": 0.2}
_VARIANTS = {
    "weights": {},
    "mean": {"loss.reduction": "mean", **_CLEAR},
    "lstm": _LSTM,
    "clear": _CLEAR,
    "trust region": {"replay.trust_region": 0.3},
    "everything": {**_LSTM, **_CLEAR, "replay.trust_region": 0.3},
}


def _make(**overrides):
    config = builders.config(
        **{"environment.id": "CartPole-v1", "replay.ratio": 0.5, "unroll_length": 8},
        **{"optimizer.clip_norm": 0.0},
    )
    config.update_from_flattened_dict(overrides)
    environment = factory.make(config.environment, 1).spec
    torch.manual_seed(0)
    policy = agent.make(config, environment)
    batch = builders.random_batch(config, environment, policy)
    recorded = torch.randn(batch.agent_output.baseline.shape)
    output = batch.agent_output._replace(baseline=recorded)
    sample = types.Sample(
        torch.tensor([1.0, 1.0, 1.0, 0.3, 0.7, 1.0]),
        torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    )
    made = learner.Learner(config, policy)
    return made, batch._replace(agent_output=output), sample


def _twin_output(policy, batch):
    """The network in float64, and what it gives."""
    network = copy.deepcopy(policy.network).double()
    for parameter in network.parameters():
        parameter.grad = None
    network.torso.inputs = lambda observation: observation  # not to float32
    twin = agent.Agent(network, policy.distribution, policy._action)
    time_step = batch.time_step._replace(
        reward=batch.time_step.reward.double(),
        observation=batch.time_step.observation.double(),
    )
    state = _twin_state(twin, batch)
    return network, twin.unroll(time_step, batch.agent_output.action, state)


@torch.no_grad()
def _twin_state(twin, batch):
    """The state before row 0: that after the rows before, where there are any."""

    def double(leaf):
        return leaf.double() if leaf.is_floating_point() else leaf

    stored = tuple(map(double, batch.core_state))
    if not batch.before:
        return stored
    state = tuple(map(double, batch.before.core_state))
    for t, action in enumerate(batch.before.action):
        row = nest.map_structure(lambda leaf, t=t: leaf[t], batch.before.time_step)
        row = row._replace(
            reward=row.reward.double(), observation=row.observation.double()
        )
        _, state = twin.step(row, state)
        state = twin.replace_action(state, action)
    num_fresh = batch.shape[1] - len(batch.before.there)
    there = {b + num_fresh: b for b in batch.before.there.nonzero().flatten().tolist()}
    return tuple(
        torch.stack([new[there[b]] if b in there else row for b, row in enumerate(old)])
        for new, old in zip(state, stored, strict=True)
    )


def _divergence(p, q):
    return sum(p.exp()[i] * (p[i] - q[i]) for i in range(len(p)))


class _Column:
    """One trajectory: what is learned of it, row by row."""

    def __init__(self, batch, output, replayed, settings, b):
        step_type = batch.time_step.step_type[:, b].tolist()
        self.length = len(step_type) - 1
        self.policy = torch.log_softmax(output.policy_logits[:, b], -1)
        recorded = batch.agent_output.policy_logits[:, b].double()
        self.behaviour = torch.log_softmax(recorded, -1)
        self.values = output.baseline[:, b]
        self.recorded_values = batch.agent_output.baseline[:, b].double()
        self.actions = batch.agent_output.action[:, b].tolist()
        self.rewards = batch.time_step.reward[1:, b].double().numpy()
        self.discounts = 0.99 * batch.time_step.discount[1:, b].double().numpy()
        self.cloned, self.kept = [], []
        for t in range(self.length):
            there = step_type[t] != 2
            distance = _divergence(self.policy[t].detach(), self.behaviour[t])
            far = settings.trust_region and distance > settings.trust_region
            self.cloned.append(there and replayed)
            self.kept.append(there and not (replayed and far))

    def pieces(self):
        """Runs of rows that are kept; each bootstraps from V of the row behind it."""
        start = None
        for t in range(self.length + 1):
            kept = t < self.length and self.kept[t]
            if kept and start is None:
                start = t
            if not kept and start is not None:
                yield start, t
                start = None

    def log_rho(self, t):
        action = self.actions[t]
        return (self.policy[t, action] - self.behaviour[t, action]).item()

    def delta(self, t):
        values = self.values.detach()
        error = self.rewards[t] + self.discounts[t] * values[t + 1] - values[t]
        return min(1.0, np.exp(self.log_rho(t))) * error.item()

    def loss(self, settings):
        total = torch.zeros((), dtype=torch.float64)
        for start, end in self.pieces():
            rows = range(start, end)
            vs, advantages = vtrace_twin.naive(
                {
                    "log_rhos": [self.log_rho(t) for t in rows],
                    "discounts": self.discounts[start:end],
                    "rewards": self.rewards[start:end],
                    "values": self.values[start:end].detach().numpy(),
                    "bootstrap_value": self.values[end].detach().numpy(),
                }
            )
            for t, v, advantage in zip(rows, vs, advantages, strict=True):
                probabilities = self.policy[t].exp()
                total = total - self.policy[t, self.actions[t]] * advantage
                total = total + 0.5 * 0.5 * (v - self.values[t]) ** 2
                total = total + 0.01 * (probabilities * self.policy[t]).sum()
        for t in range(self.length):
            if self.cloned[t]:
                kl = _divergence(self.behaviour[t], self.policy[t])
                error = self.values[t] - self.recorded_values[t]
                total = total + settings.clear_policy_cost * kl
                total = total + settings.clear_value_cost * error**2
        return total

    def priority(self, eta):
        found = [abs(self.delta(t)) for t in range(self.length) if self.kept[t]]
        return eta * max(found) + (1.0 - eta) * sum(found) / len(found) if found else 0


def _twin(made, batch, sample):
    """Gradient by name, loss, priorities, share of what the trust region dropped."""
    settings = made._config.replay
    network, output = _twin_output(made.agent, batch)
    replayed = sample.replayed.tolist()
    columns = [
        _Column(batch, output, replayed[b], settings, b) for b in range(len(replayed))
    ]
    weights = sample.weight.double().tolist()
    total = sum(w * c.loss(settings) for w, c in zip(weights, columns, strict=True))
    count = batch.agent_output.action.numel()
    if made._config.loss.reduction == "mean":
        total = total / count
    total.backward()
    dropped = sum(sum(c.cloned) - sum(c.kept) for c in columns if any(c.cloned))
    gradient = {k: p.grad for k, p in network.named_parameters()}
    priorities = [c.priority(settings.priority_eta) for c in columns]
    return gradient, total.item(), priorities, dropped / (count / 2)


def _assert_close(made, expected):
    for name, parameter in made.agent.network.named_parameters():
        scale = expected[name].abs().max().item() + 1e-3
        error = (parameter.grad.double() - expected[name]).abs().max().item()
        assert error < 1e-4 * scale, name


@pytest.mark.parametrize("variant", _VARIANTS)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_gradient_is_the_twins(variant, parts):
    made, batch, sample = _make(
        **_VARIANTS[variant], **{"learner.micro_batches": parts}
    )
    gradient, loss, priorities, dropped = _twin(made, batch, sample)
    metrics = made.update(batch, _LIVE, sample)
    by_name = dict(
        zip(learner.metric_names(made._config), metrics.tolist(), strict=True)
    )
    assert by_name["loss/total"] == pytest.approx(loss, rel=1e-4)
    assert by_name["replay/dropped_share"] == pytest.approx(dropped, abs=1e-6)
    assert (dropped > 0.1) == bool(made._config.replay.trust_region)
    assert made.priorities.tolist() == pytest.approx(priorities, rel=1e-4)
    _assert_close(made, gradient)
    assert made.agent_steps == 8 * 3  # what is replayed was counted before


_IMPACT = {"algorithm": "impact", "target.period": 3}
_ALGORITHMS = [{}, {**_IMPACT, "loss.popart": True, "learner.passes": 2}]


@pytest.mark.parametrize("algorithm_", _ALGORITHMS, ids=["vtrace", "impact"])
def test_a_batch_of_fresh_trajectories_is_learned_as_without_replay(algorithm_):
    everything = {**_CLEAR, "replay.trust_region": 0.01}
    made, batch, sample = _make(**everything, **algorithm_)
    plain, _, _ = _make(**{"replay.ratio": 0.0}, **algorithm_)
    fresh = types.Sample(torch.ones(6), torch.zeros(6))
    made.update(batch, _LIVE, fresh)
    plain.update(batch, _LIVE)
    assert torch.equal(made.parameters.trainable, plain.parameters.trainable)
    assert plain.priorities is None


def test_impacts_gradient_is_the_weighted_sum_over_trajectories():
    weights = [1.0, 1.0, 1.0, 0.3, 0.7, 0.9]
    everything = {**_CLEAR, **_IMPACT, "replay.trust_region": 0.3}

    def gradient(*weights):
        made, batch, sample = _make(**everything)
        made.update(batch, _LIVE, sample._replace(weight=torch.tensor(weights)))
        return made._gradient.clone()

    whole = gradient(*weights)
    parts = [gradient(*(float(b == i) for b in range(6))) for i in range(6)]
    summed = sum(w * part for w, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(whole, summed, rtol=1e-4, atol=1e-5)
    assert whole.norm() > 0.1


def test_value_errors_are_in_popart_units():
    made, batch, sample = _make(**{**_CLEAR, "loss.popart": True})
    output = agent.NetworkOutput(torch.randn(9, 6, 2), torch.randn(9, 6))

    def cloning(variance):
        made._popart.variance.fill_(variance)
        part = (batch, sample, None, lambda batch: output)
        loss = made._algorithm.loss(*part, _LIVE, 48)
        return loss.metrics["loss/value_cloning"].item()

    assert cloning(4.0) == pytest.approx(cloning(1.0) / 4.0)


@pytest.mark.parametrize("passes", [1, 3])
def test_the_priorities_of_a_skipped_step_are_not_numbers(passes):
    made, batch, sample = _make(**{"learner.passes": passes})
    made.update(batch, _LIVE, sample)
    assert made.priorities.isfinite().all()
    builders.spoil_step(made, 0)
    made.update(batch, _LIVE, sample)
    assert made.priorities.isnan().all()
