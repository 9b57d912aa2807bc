"""IQN's update against loops in float64: one row, one episode, one pair at a time."""

import numpy as np
import pytest
import torch

from impala_mp import types
from impala_mp.algorithms import action_returns, base, iqn
from impala_mp.runtime import program
from impala_mp.storage import metrics
from impala_mp.workers import learner
from tests.support import builders, learners

_BASE = {
    "algorithm": "iqn",
    "target.period": 100,
    "dqn.n_step": 2,
    "iqn.quantiles": 4,
    "iqn.kappa": 0.7,
    "optimizer.clip_norm": 0.0,
    "optimizer.learning_rate": 0.03,
    "optimizer.schedule": "constant",
}
_FIXED = {"iqn.fractions": "fixed"}
_KINDS = {
    "drawn": {"iqn.acting_quantiles": 6, "iqn.embedding": 5},
    "fixed": _FIXED,
    "single": {"dqn.double": False, "dqn.n_step": 1},
    "rescaled": {"dqn.rescaling": "hyperbolic"},
    "no target": {"target.period": 0},
    "norm": {"network.layer_norm": True},
    "lstm": learners.LSTM,
    "fixed gru": {**_FIXED, **learners.LSTM, "network.core": "gru"},
    "one quantile": {**_FIXED, "iqn.quantiles": 1},
    "popart": {"loss.popart": True, "loss.popart_beta": 0.1},
    "fixed popart": {**_FIXED, "loss.popart": True, "loss.popart_beta": 0.1},
}
_SEED = 5  # of the fractions that an update draws


def _huber(error, kappa):
    if abs(error) <= kappa:
        return 0.5 * error**2
    return kappa * (abs(error) - 0.5 * kappa)


def _targets(settings, batch, column, values, t, end):
    """Each quantile by its own sum of rewards; `values` are those of a row."""
    last, total, weight = min(t + settings.n_step, end), 0.0, 1.0
    for k in range(t, last):
        total += weight * batch.time_step.reward[k + 1, column].item()
        weight *= 0.99 * batch.time_step.discount[k + 1, column].item()
    found = values(last)
    if settings.rescaling == "none":
        return [total + weight * value for value in found]
    restored = action_returns.restore(torch.tensor(found).double())
    return action_returns.rescale(total + weight * restored).tolist()


def _outputs(made, policy, batch):
    """A copy of the network, its outputs and the target's, as the next update's.

    They are in float64. The fractions are those that follow `_SEED`.
    """
    torch.manual_seed(_SEED)
    reference = None
    if made._config.target.period:
        with made._algorithm._target.in_place():
            _, reference = learners.double_outputs(policy, batch)
    network, output = learners.double_outputs(policy, batch)
    return network, output, reference or output


def _twin(made, policy, batch):
    """Gradients of the sum of the loss over rows, and all targets, [T, B, N]."""
    settings, kappa = made._config.dqn, made._config.iqn.kappa
    network, output, reference = _outputs(made, policy, batch)
    chooses = output if settings.double else reference
    greedy = chooses.q_values.argmax(-1)
    shape = (*batch.agent_output.action.shape, made._config.iqn.quantiles)
    total, all_targets = 0.0, np.full(shape, np.nan)
    popart = made._popart
    scale = 1.0 if popart is None else popart.scale.item()
    for column in range(shape[1]):

        def values(row, column=column):
            return reference.quantiles[row, column, :, greedy[row, column]].tolist()

        for start, end in learners.pieces(batch, column):
            for t in range(start, end):
                targets = _targets(settings, batch, column, values, t, end)
                all_targets[t, column] = targets
                action = batch.agent_output.action[t, column]
                for i, fraction in enumerate(output.fractions[t, column].tolist()):
                    for target in targets:
                        quantile = output.quantiles[t, column, i, action]
                        error = (target - quantile) / scale
                        weight = abs(fraction - float(error < 0.0))
                        part = weight * _huber(error, kappa) / kappa
                        total = total + part / len(targets)
    total.backward()
    return {k: p.grad for k, p in network.named_parameters()}, all_targets


def _make(sample=None, **overrides):
    """A learner whose network has moved away from the target network."""
    made, policy, batch = learners.make(**{**_BASE, **overrides})
    for _ in range(3):
        made.update(batch, base.live_from_config(made._config), sample)
    return made, policy, batch


@pytest.mark.parametrize("kind", _KINDS)
def test_the_gradient_is_that_of_the_sum_over_pairs(kind):
    """Only quantiles of the action taken have a gradient."""
    made, policy, batch = _make(**_KINDS[kind])
    expected, _ = _twin(made, policy, batch)
    torch.manual_seed(_SEED)
    made.update(batch, base.live_from_config(made._config))
    learners.assert_gradients(policy, expected)


@pytest.mark.parametrize("kind", _KINDS)
def test_targets_are_those_of_the_loops(kind):
    made, policy, batch = _make(**_KINDS[kind])
    targets = _twin(made, policy, batch)[1]
    torch.manual_seed(_SEED)
    loss = made.loss(batch, base.live_from_config(made._config))
    known = ~np.isnan(targets[..., 0])
    assert known.any()
    assert not known.all()
    found = loss.elements["q/targets"].numpy()[known]
    np.testing.assert_allclose(found, targets[known].mean(-1), atol=2e-5)
    if loss.moments is None:
        return
    deviations = targets[known].ravel() - made._popart.mean.item()
    expected = len(deviations), deviations.sum(), np.square(deviations).sum()
    np.testing.assert_allclose(loss.moments[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("period", [0, 100])
@pytest.mark.parametrize("passes", [1, 2])
def test_micro_batches_draw_the_same_and_make_the_same_update(period, passes):
    overrides = {**_BASE, "target.period": period, "learner.passes": passes}
    overrides["optimizer.epsilon"] = 0.1  # without it small gradients' rounding counts
    one, _, batch = learners.make(**overrides)
    three, _, _ = learners.make(**overrides, **{"learner.micro_batches": 3})
    live = base.live_from_config(one._config)
    metrics = []
    for made in (one, three):
        torch.manual_seed(_SEED)
        metrics.append(made.update(batch, live))
    flats = [made.parameters.flat.view(torch.float32) for made in (one, three)]
    torch.testing.assert_close(*flats, rtol=1e-4, atol=1e-6)
    loss = learner.metric_names(one._config).index("loss/quantile")
    torch.testing.assert_close(metrics[0][loss], metrics[1][loss])


def test_each_pass_draws_other_fractions():
    made, _, batch = learners.make(**_BASE)
    first, second = (made.unroll(batch).fractions for _ in range(2))
    assert not torch.equal(first, second)
    assert 0.0 <= first.min() < 0.1
    assert 0.9 < first.max() < 1.0


@pytest.mark.parametrize("fractions", ["drawn", "fixed"])
def test_priorities_and_metrics_are_those_of_means(fractions):
    sample = types.Sample(torch.linspace(0.5, 1.0, 6), torch.ones(6))
    overrides = {"iqn.fractions": fractions, "replay.reuse": 1.0}
    overrides |= {"replay.priority_exponent": 0.6, "replay.priority_eta": 1.0}
    made, policy, batch = _make(sample, **overrides)
    _, output, _ = _outputs(made, policy, batch)
    means = _twin(made, policy, batch)[1].mean(-1)
    action = batch.agent_output.action.unsqueeze(-1)
    taken = output.q_values[:-1].gather(-1, action).squeeze(-1).detach().numpy()
    torch.manual_seed(_SEED)
    loss = made.loss(batch, base.live_from_config(made._config), sample)
    expected = np.nanmax(np.abs(means - taken), 0)
    np.testing.assert_allclose(loss.priorities.numpy(), expected, atol=2e-5)
    assert set(loss.metrics) == set(iqn.METRICS)
    known = ~np.isnan(means)
    for name, values in (("q/mean", taken), ("q/target_mean", means)):
        np.testing.assert_allclose(loss.metrics[name], values[known].mean(), atol=2e-5)
    weights = base.learnable(batch) * sample.weight
    expected = (loss.elements["loss/quantile"] * weights).sum()
    torch.testing.assert_close(loss.metrics["loss/quantile"], expected.detach())


_TRAINING = {
    "algorithm": "iqn",
    "evaluation.greedy": True,
    "vtrace.lambda_": 0.95,
    "target.period": 3,
    "actors.epsilon": 0.2,
    "loss.popart": True,
    "loss.popart_beta": 0.1,
}
_REPLAYED = {"replay.reuse": 1.0, "replay.start": 6, "replay.memory_mib": 1.0}


@pytest.mark.integration
@pytest.mark.parametrize("fractions", [{}, _FIXED], ids=["drawn", "fixed"])
def test_a_training_of_two_tasks_with_burn_in(tmp_path, fractions):
    """Acrobot's returns are negative, CartPole's positive; each has its own mean."""
    overrides = {**_TRAINING, **fractions, **_REPLAYED, **learners.LSTM}
    overrides |= {"replay.burn_in": True, "learner.micro_batches": 2}
    name = "CartPole-v1, Acrobot-v1"
    config = builders.short_training(name, **overrides, total_agent_steps=600)
    program.train(config, str(tmp_path))
    *_, record = (r for r in metrics.read(str(tmp_path)) if "loss/quantile" in r)
    assert record["popart/mean/Acrobot-v1"] < 0.0 < record["popart/mean/CartPole-v1"]
    assert record["loss/quantile"] > 0.0
    assert record["updates"] > 10
