"""On-policy, V-trace is A2C and IMPACT is PPO: each against a float64 twin."""

import numpy as np
import pytest
import torch

from impala_mp.algorithms import base, registry
from impala_mp.config import base as config_base
from impala_mp.workers import learner
from tests.support import builders, learners, vtrace_twin

_CLIP_RANGE = 0.1
_THRESHOLDS = ("clip_rho_threshold", "clip_pg_rho_threshold", "clip_c_threshold")
_CORES = pytest.mark.parametrize("core", [{}, learners.LSTM], ids=["mlp", "lstm"])


def _on_policy(policy, batch):
    """The batch as if the network as it is had acted."""
    with torch.no_grad():
        output = policy.unroll(
            batch.time_step, batch.agent_output.action, batch.core_state
        )
    logits = output.policy_logits[:-1].clone()
    return batch._replace(
        agent_output=batch.agent_output._replace(policy_logits=logits)
    )


def _live(made):
    live = base.live_from_config(made._config)
    return live._replace(**dict.fromkeys(_THRESHOLDS, float("inf")))


def _returns(batch, column, start, end, bootstrap):
    """n-step returns of one episode's rows, backwards by their definition."""
    found, value = [], bootstrap
    for row in reversed(range(start, end)):
        discount = 0.99 * batch.time_step.discount[row + 1, column].item()
        value = batch.time_step.reward[row + 1, column].item() + discount * value
        found.append(value)
    return found[::-1]


def _twin(policy, batch, old, term):
    """Gradient of a sum over rows: `term` of the policy's part, 1/4 error^2, entropy.

    `old` is the network's output before the update; `term` a function of log pi, log pi
    of `old` and the advantage.
    """
    network, output = learners.double_outputs(policy, batch)
    total = 0.0
    for column in range(batch.agent_output.action.shape[1]):
        for start, end in learners.pieces(batch, column):
            bootstrap = old.baseline[end, column].item()
            returns = _returns(batch, column, start, end, bootstrap)
            for row in range(start, end):
                action = batch.agent_output.action[row, column]
                new_probs, old_probs = (
                    torch.log_softmax(each.policy_logits[row, column], -1)
                    for each in (output, old)
                )
                target = returns[row - start]
                advantage = target - old.baseline[row, column].item()
                total = total + term(new_probs[action], old_probs[action], advantage)
                total = total + 0.25 * (target - output.baseline[row, column]) ** 2
                total = total + 0.01 * (new_probs.exp() * new_probs).sum()
    total.backward()
    return {k: p.grad for k, p in network.named_parameters()}


def _a2c(log_prob, old_log_prob, advantage):
    return -log_prob * advantage


def _ppo(log_prob, old_log_prob, advantage):
    ratio = torch.exp(log_prob - old_log_prob)
    if advantage > 0:
        return -torch.clamp(ratio, max=1.0 + _CLIP_RANGE) * advantage
    return -torch.clamp(ratio, min=1.0 - _CLIP_RANGE) * advantage


def test_each_algorithm_has_a_name_and_each_name_an_algorithm():
    assert tuple(registry._ALGORITHMS) == config_base.BY_NAME["algorithm"].choices


@_CORES
def test_vtrace_on_policy_is_a2c(core):
    made, policy, batch = learners.make(**core, **{"optimizer.clip_norm": 0.0})
    batch = _on_policy(policy, batch)
    _, old = learners.double_outputs(policy, batch)
    expected = _twin(policy, batch, old, _a2c)
    made.update(batch, _live(made))
    learners.assert_gradients(policy, expected)


_IMPACT = {
    "algorithm": "impact",
    "impact.clip_range": _CLIP_RANGE,
    "impact.kl_cost": 0.0,
    "impact.normalise_advantages": False,
    "target.period": 8,
    "optimizer.clip_norm": 0.0,
    "optimizer.learning_rate": 0.03,
    "optimizer.schedule": "constant",
}


@_CORES
@pytest.mark.parametrize("before", [0, 2, 4])
def test_impact_on_policy_is_ppo(core, before):
    """After some updates from the same target: pi has moved, mu and the target not."""
    made, policy, batch = learners.make(**core, **_IMPACT)
    batch = _on_policy(policy, batch)
    _, old = learners.double_outputs(policy, batch)
    for _ in range(before):
        made.update(batch, _live(made))
    expected = _twin(policy, batch, old, _ppo)
    metrics = made.update(batch, _live(made)).tolist()
    learners.assert_gradients(policy, expected)
    by_name = dict(zip(learner.metric_names(made._config), metrics, strict=True))
    assert by_name["vtrace/rho_mean"] <= 1.0  # of the target: not learnable ones are 0
    assert (by_name["impact/ratio_clipped"] > 0.0) == (before > 0)
    assert (by_name["impact/kl_target"] > 1e-4) == (before > 0)


def test_several_passes_are_several_updates_of_the_same_batch():
    made, _, batch = learners.make(**_IMPACT, **{"learner.passes": 3})
    other, _, _ = learners.make(**_IMPACT)
    metrics = made.update(batch, _live(made))
    apart = [other.update(batch, _live(other)).clone() for _ in range(3)]
    assert torch.equal(made.parameters.flat, other.parameters.flat)
    torch.testing.assert_close(metrics, sum(apart) / 3)
    assert (made.updates, made.agent_steps) == (1, 30)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_target_network_is_asked_once_an_update(parts, monkeypatch):
    overrides = {"learner.passes": 4, "learner.micro_batches": parts}
    made, policy, batch = learners.make(**_IMPACT, **overrides)
    unroll, asked = policy.unroll, []

    def counted(*args):
        asked.append(torch.is_grad_enabled())
        return unroll(*args)

    monkeypatch.setattr(policy, "unroll", counted)
    made.update(batch, _live(made))
    assert asked == [False] * parts + [True] * 4 * parts


def test_an_update_is_skipped_if_a_pass_was():
    made, _, batch = learners.make(**_IMPACT, **{"learner.passes": 4})
    builders.spoil_step(made, 1)
    metrics = made.update(batch, _live(made))
    skipped = learner.metric_names(made._config).index("health/skipped_share")
    assert metrics[skipped] == 1.0
    assert metrics.isfinite().all()
    assert not made.raw_metrics.isfinite().all()
    assert made._optimizer.state["steps"] == 3


def _naive_surrogate(batch, old, new, threshold, unit=lambda advantages: advantages):
    """The paper's: pi / max(pi', mu / threshold), V-trace by pi' / mu and V'."""
    found, behaviour = [], batch.agent_output
    for column in range(behaviour.action.shape[1]):
        for start, end in learners.pieces(batch, column):
            rows = np.arange(start, end)
            action = behaviour.action[start:end, column].numpy()
            pi, target, mu = (
                torch.softmax(logits[start:end, column].double(), -1)
                .detach()
                .numpy()[np.arange(end - start), action]
                for logits in (
                    new.policy_logits,
                    old.policy_logits,
                    behaviour.policy_logits,
                )
            )
            values = old.baseline[:, column].detach().numpy()
            _, advantages = vtrace_twin.naive(
                {
                    "log_rhos": np.log(target / mu),
                    "discounts": 0.99 * batch.time_step.discount[rows + 1, column],
                    "rewards": batch.time_step.reward[rows + 1, column],
                    "values": values[rows],
                    "bootstrap_value": values[end],
                }
            )
            ratios = pi / np.maximum(target, mu / threshold)
            found.append((ratios, np.array(advantages)))
    ratios, advantages = (np.concatenate(each) for each in zip(*found, strict=True))
    advantages = unit(advantages)
    clipped = np.clip(ratios, 1.0 - _CLIP_RANGE, 1.0 + _CLIP_RANGE)
    return -np.minimum(ratios * advantages, clipped * advantages).sum()


def test_off_policy_the_surrogate_is_the_papers():
    made, policy, batch = learners.make(**_IMPACT, **{"impact.ratio_threshold": 1.3})
    _, old = learners.double_outputs(policy, batch)  # batch: of another policy
    with torch.no_grad():
        policy.network.policy.bias.copy_(torch.tensor([0.2, -0.3]))
    _, new = learners.double_outputs(policy, batch)
    expected = _naive_surrogate(batch, old, new, 1.3)
    metrics = made.update(batch, base.live_from_config(made._config)).tolist()
    by_name = dict(zip(learner.metric_names(made._config), metrics, strict=True))
    assert by_name["loss/policy_gradient"] == pytest.approx(expected, rel=1e-4)


_NORMALISED = {**_IMPACT, "impact.normalise_advantages": True}


def test_advantages_are_divided_by_their_root_mean_square():
    """The surrogate is divided by it, too: it is linear in the advantages."""
    losses = []
    for scale in (1.0, 1000.0):
        made, _, batch = learners.make(**_NORMALISED)
        time_step = batch.time_step._replace(reward=scale * batch.time_step.reward)
        batch = batch._replace(time_step=time_step)
        live = base.live_from_config(made._config)
        plain, _, _ = learners.make(**_IMPACT)
        found = plain.loss(batch, live)
        each = found.elements["vtrace/pg_advantages"].double()
        count = base.learnable(batch).sum()
        expected = found.metrics["loss/policy_gradient"].double()
        expected = expected / (each.square().sum() / count).sqrt()
        loss = made.loss(batch, live).metrics["loss/policy_gradient"]
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
        losses.append(loss.abs().item())
    assert max(losses) < 100.0 * min(losses)


_CENTRED = {**_NORMALISED, "impact.centre_advantages": True}


def _centred(advantages):
    return (advantages - advantages.mean()) / advantages.std()


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_centred_advantages_are_a_naive_twins(shift):
    made, policy, batch = learners.make(**_CENTRED)
    reward = batch.time_step.reward + shift
    batch = batch._replace(time_step=batch.time_step._replace(reward=reward))
    _, old = learners.double_outputs(policy, batch)
    with torch.no_grad():
        policy.network.policy.bias.copy_(torch.tensor([0.2, -0.3]))
    _, new = learners.double_outputs(policy, batch)
    expected = _naive_surrogate(batch, old, new, 2.0, _centred)
    loss = made.loss(batch, base.live_from_config(made._config))
    found = loss.metrics["loss/policy_gradient"].item()
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", [_NORMALISED, _CENTRED], ids=["scaled", "centred"])
def test_the_unit_of_the_advantages_is_that_of_the_whole_batch(kind):
    states = []
    for parts in (1, 3):
        made, _, batch = learners.make(
            **kind,
            **{"learner.micro_batches": parts, "loss.baseline_cost": 0.0},
        )
        columns = torch.arange(batch.time_step.reward.shape[1])  # of unequal scales
        reward = batch.time_step.reward * 10.0 ** columns.float()
        time_step = batch.time_step._replace(reward=reward)
        made.update(batch._replace(time_step=time_step), _live(made))
        states.append(made._gradient.clone())
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("centre", [False, True])
def test_each_task_has_its_own_unit(monkeypatch, centre):
    made, policy, batch = learners.make(**(_CENTRED if centre else _NORMALISED))
    algorithm = made._algorithm
    task = torch.zeros_like(batch.time_step.step_type, dtype=torch.int64)
    task[:, ::2] = 1
    monkeypatch.setattr(policy.network, "task_of", lambda time_step: task)
    monkeypatch.setattr(algorithm._critic, "num_tasks", 2)
    reward = batch.time_step.reward * (1.0 + 99.0 * task)
    batch = batch._replace(time_step=batch.time_step._replace(reward=reward))
    live = base.live_from_config(made._config)
    (reference,) = algorithm.references([batch], made.unroll, live)
    each = made.loss(batch, live).elements["vtrace/pg_advantages"]
    learnable = base.learnable(batch)
    for index in range(2):
        own = task[:-1] == index
        learned = each[own & (learnable > 0.0)]
        mean = learned.mean() if centre else torch.zeros(())
        scale = (learned - mean).square().mean().sqrt()
        for found, expected in ((reference.mean, mean), (reference.scale, scale)):
            torch.testing.assert_close(found[own], expected.expand_as(found[own]))


def test_advantages_that_are_all_zero_stay_zero():
    made, policy, batch = learners.make(**_NORMALISED)
    with torch.no_grad():
        for parameter in policy.network.baseline.parameters():
            parameter.zero_()
    made._algorithm.after_update(0)
    reward = torch.zeros_like(batch.time_step.reward)
    batch = batch._replace(time_step=batch.time_step._replace(reward=reward))
    loss = made.loss(batch, base.live_from_config(made._config))
    assert loss.metrics["loss/policy_gradient"] == 0.0
    assert loss.total.isfinite()


def test_the_kl_penalty_holds_the_policy_near_the_target():
    metrics = []
    for cost in (0.0, 30.0):
        made, _, batch = learners.make(**{**_IMPACT, "impact.kl_cost": cost})
        for _ in range(6):
            values = made.update(batch, _live(made)).tolist()
        names = learner.metric_names(made._config)
        metrics.append(dict(zip(names, values, strict=True)))
    free, held = metrics
    assert held["impact/kl_target"] < 0.5 * free["impact/kl_target"]
    decisions = base.learnable(batch).sum().item()
    expected = 30.0 * decisions * held["impact/kl_target"]
    assert held["loss/kl"] == pytest.approx(expected)
    assert free["loss/kl"] == 0.0
