"""DQN's update against loops in float64, one row and one episode at a time."""

import numpy as np
import pytest
import torch

from impala_mp.algorithms import base, dqn
from impala_mp.workers import learner
from tests.support import learners

_BASE = {
    "algorithm": "dqn",
    "target.period": 100,
    "optimizer.clip_norm": 0.0,
    "optimizer.learning_rate": 0.03,
    "optimizer.schedule": "constant",
}
_KINDS = {
    "n_step": {"dqn.returns": "n_step", "dqn.n_step": 2},
    "lambda": {"dqn.returns": "lambda", "dqn.lambda_": 0.7},
    "peng": {"dqn.returns": "peng", "dqn.lambda_": 0.7},
    "retrace": {"dqn.returns": "retrace", "dqn.lambda_": 0.9},
    "single": {"dqn.returns": "n_step", "dqn.n_step": 1, "dqn.double": False},
    "rescaled": {"dqn.returns": "retrace", "dqn.rescaling": "hyperbolic"},
    "no target": {"dqn.returns": "peng", "target.period": 0},
    "dueling": {"dqn.returns": "n_step", "network.dueling": True},
    "norm": {"dqn.returns": "n_step", "network.layer_norm": True},
    "lstm": {"dqn.returns": "retrace", **learners.LSTM},
    "huber": {"loss.baseline": "huber", "loss.huber_delta": 0.3},
}


def _h(x):
    return np.sign(x) * (np.sqrt(abs(x) + 1.0) - 1.0) + 1e-3 * x


def _inverse(y):
    root = np.sqrt(1.0 + 4e-3 * (abs(y) + 1.0 + 1e-3))
    return np.sign(y) * (((root - 1.0) / 2e-3) ** 2 - 1.0)


def _returns(settings, rewards, discounts, values, q_taken, is_greedy):
    """Targets of one part of an episode, each by its own sum."""
    found, length = [], len(rewards)
    if settings.returns == "peng":
        return _peng(settings.lambda_, rewards, discounts, values)
    for t in range(length):
        total, weight = 0.0, 1.0
        if settings.returns == "n_step":
            last = min(t + settings.n_step, length)
            for k in range(t, last):
                total += weight * rewards[k]
                weight *= discounts[k]
            found.append(total + weight * values[last])
            continue
        for k in range(t, length):
            if k > t:
                weight *= discounts[k - 1] * settings.lambda_
                weight *= is_greedy[k] if settings.returns == "retrace" else 1.0
            total += weight * (rewards[k] + discounts[k] * values[k + 1] - q_taken[k])
        found.append(q_taken[t] + total)
    return found


def _peng(lambda_, rewards, discounts, values):
    """Peng's Q(lambda) by its definition, from the last return back."""
    found = [values[-1]]
    for reward, discount, value in zip(
        rewards[::-1], discounts[::-1], values[:0:-1], strict=True
    ):
        mixed = (1.0 - lambda_) * value + lambda_ * found[0]
        found.insert(0, reward + discount * mixed)
    return found[:-1]


def _twin(made, policy, batch, reference):
    """Gradient of the sum over rows of half the squared error, and all targets."""
    settings, loss = made._config.dqn, made._config.loss
    network, output = learners.double_outputs(policy, batch)
    reference = output if reference is None else reference
    rescales = settings.rescaling == "hyperbolic"
    restored, scaled = (_inverse, _h) if rescales else (float, float)
    total, targets = 0.0, np.full(batch.agent_output.action.shape, np.nan)
    for column in range(targets.shape[1]):
        q = output.q_values[:, column].detach().numpy()
        other = reference.q_values[:, column].detach().numpy()
        action = batch.agent_output.action[:, column].tolist()
        greedy = (q if settings.double else other).argmax(-1)
        for start, end in learners.pieces(batch, column):
            rows = range(start, end)
            time_step = batch.time_step
            found = _returns(
                settings,
                [time_step.reward[t + 1, column].item() for t in rows],
                [0.99 * time_step.discount[t + 1, column].item() for t in rows],
                [restored(other[t, greedy[t]]) for t in range(start, end + 1)],
                [restored(other[t, action[t]]) for t in rows],
                [float(action[t] == greedy[t]) for t in rows],
            )
            for t, target in zip(rows, found, strict=True):
                targets[t, column] = scaled(target)
                error = targets[t, column] - output.q_values[t, column, action[t]]
                if loss.baseline == "huber" and abs(error) > loss.huber_delta:
                    part = loss.huber_delta * (abs(error) - loss.huber_delta / 2)
                else:
                    part = 0.5 * error**2
                total = total + part
    total.backward()
    return {k: p.grad for k, p in network.named_parameters()}, targets


def _moved(made, policy, batch):
    """Moves the online network away from the target; returns the target's outputs."""
    if made._config.target.period == 0:
        return None
    _, reference = learners.double_outputs(policy, batch)
    for _ in range(3):
        made.update(batch, base.live_from_config(made._config))
    return reference


@pytest.mark.parametrize("kind", _KINDS)
def test_the_gradient_is_that_of_the_sum(kind):
    """Only Q(x_t, a_t) has a gradient: neither the target nor the choice of action."""
    made, policy, batch = learners.make(**{**_BASE, **_KINDS[kind]})
    reference = _moved(made, policy, batch)
    expected, _ = _twin(made, policy, batch, reference)
    made.update(batch, base.live_from_config(made._config))
    learners.assert_gradients(policy, expected)


@pytest.mark.parametrize("kind", _KINDS)
def test_targets_are_those_of_the_loops(kind):
    made, policy, batch = learners.make(**{**_BASE, **_KINDS[kind]})
    reference = _moved(made, policy, batch)
    _, targets = _twin(made, policy, batch, reference)
    found = made.loss(batch, base.live_from_config(made._config)).elements["q/targets"]
    known = ~np.isnan(targets)
    assert known.any()
    assert not known.all()
    np.testing.assert_allclose(found.numpy()[known], targets[known], atol=2e-5)


def test_micro_batches_make_the_same_update():
    one, _, batch = learners.make(**_BASE)
    three, _, _ = learners.make(**_BASE, **{"learner.micro_batches": 3})
    live = base.live_from_config(one._config)
    metrics = one.update(batch, live), three.update(batch, live)
    flats = [made.parameters.flat.view(torch.float32) for made in (one, three)]
    torch.testing.assert_close(*flats, rtol=1e-4, atol=1e-6)
    names = learner.metric_names(one._config)
    td = names.index("loss/td")
    torch.testing.assert_close(metrics[0][td], metrics[1][td])


def test_popart_keeps_values_and_divides_errors():
    overrides = {**_BASE, "loss.popart": True, "loss.popart_beta": 0.1}
    made, policy, batch = learners.make(**overrides)
    live = base.live_from_config(made._config)
    batch = batch._replace(
        time_step=batch.time_step._replace(reward=batch.time_step.reward * 1000.0)
    )
    for _ in range(3):
        made.update(batch, live)
    loss = made.loss(batch, live)
    scale = policy.network.baseline.scale
    assert scale.item() > 100.0
    errors = (loss.elements["q/targets"] - loss.elements["q/taken"]) / scale
    expected = 0.5 * errors.detach().square()
    torch.testing.assert_close(loss.elements["loss/td"].detach(), expected)


def test_the_target_network_moves_once_a_period():
    made, policy, batch = learners.make(**{**_BASE, "target.period": 2})
    live, target = base.live_from_config(made._config), made._algorithm.state["target"]
    before = target.clone()
    made.update(batch, live)
    assert torch.equal(target, before)
    made.update(batch, live)
    assert torch.equal(target, made.parameters.flat)


def test_without_a_target_network_there_is_no_state():
    made, _, batch = learners.make(**{**_BASE, "target.period": 0})
    assert made._algorithm.state == {}
    assert made._algorithm.references([batch], made.unroll, None) == [()]


def test_returns_are_known_where_an_episode_terminates():
    """Rows: 0 and 1 lead to a termination, 2 is a reset, 3 and 4 are cut."""
    rewards = torch.tensor([[1.0], [2.0], [99.0], [4.0], [8.0]])
    discounts = torch.tensor([[0.5], [0.0], [0.5], [0.5], [0.5]])
    learnable = torch.tensor([[1.0], [1.0], [0.0], [1.0], [1.0]])
    returns, known = dqn.known_returns(rewards, discounts, learnable)
    assert known.squeeze(1).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert returns[:2].squeeze(1).tolist() == [2.0, 2.0]


def test_metrics_are_those_of_their_table():
    """q/gap: best minus second; q/overestimation: values minus known returns."""
    made, policy, batch = learners.make(**{**_BASE, "dqn.n_step": 1})
    live = base.live_from_config(made._config)
    metrics = made.loss(batch, live).metrics
    with torch.no_grad():
        output = policy.unroll(
            batch.time_step, batch.agent_output.action, batch.core_state
        )
    learnable = base.learnable(batch)
    gap = output.q_values.topk(2, -1).values.diff(dim=-1).squeeze(-1).abs()[:-1]
    expected = (gap * learnable).sum() / learnable.sum()
    torch.testing.assert_close(metrics["q/gap"], expected)
    assert set(metrics) == set(dqn.METRICS)
    differences = []
    time_step = batch.time_step
    for column in range(learnable.shape[1]):
        for start, end in learners.pieces(batch, column):
            if time_step.discount[end, column] > 0.0:
                continue
            value = 0.0
            for t in reversed(range(start, end)):
                discount = 0.99 * time_step.discount[t + 1, column]
                value = time_step.reward[t + 1, column] + discount * value
                action = batch.agent_output.action[t, column]
                differences.append(output.q_values[t, column, action] - value)
    assert differences
    torch.testing.assert_close(
        metrics["q/overestimation"], torch.stack(differences).mean()
    )
