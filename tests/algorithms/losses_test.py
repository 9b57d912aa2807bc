"""The terms of the loss against formulas, and their gradients by hand."""

import itertools
import math

import pytest
import torch

from impala_mp import errors
from impala_mp.algorithms import losses
from impala_mp.config import base

_T, _B, _A = 6, 4, 3


def _soft_asymmetric(reward):
    squeezed = math.tanh(reward / 5.0)
    return 5.0 * (0.3 * min(squeezed, 0.0) + max(squeezed, 0.0))


@pytest.mark.parametrize(
    ("clipping", "formula"),
    [
        ("none", lambda r: r),
        ("abs_one", lambda r: min(max(r, -1.0), 1.0)),
        ("soft_asymmetric", _soft_asymmetric),
    ],
)
def test_reward_clippings(clipping, formula):
    rewards = [-1000.0, -7.0, -1.0, -0.3, 0.0, 0.3, 1.0, 7.0, 1000.0]
    expected = torch.tensor([[formula(r)] for r in rewards])
    actual = losses.clip_rewards(torch.tensor(rewards)[:, None], clipping)
    torch.testing.assert_close(actual, expected)


def test_every_clipping_is_tested_and_others_are_refused():
    assert base.BY_NAME["loss.reward_clipping"].choices == (
        "none",
        "abs_one",
        "soft_asymmetric",
    )
    with pytest.raises(errors.BadInput, match=r"'sign'.* one of .*abs_one"):
        losses.clip_rewards(torch.zeros(1), "sign")


def _random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _actions():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(_A, (_T, _B), generator=generator)


def _log_probs(logits, actions):
    return logits.log_softmax(-1).gather(-1, actions[..., None]).squeeze(-1)


def test_the_gradient_of_the_policy_gradient_loss():
    logits = _random(_T, _B, _A).requires_grad_()
    advantages = _random(_T, _B, seed=2).requires_grad_()
    loss = losses.policy_gradient_loss(_log_probs(logits, _actions()), advantages)
    assert loss.shape == (_T, _B)
    loss.sum().backward()
    taken = torch.nn.functional.one_hot(_actions(), _A)
    # d/dlogits of -adv log softmax(logits)[a]; it lowers the loss to do more of what
    # turned out better than expected.
    by_hand = advantages[..., None] * (logits.softmax(-1) - taken)
    torch.testing.assert_close(logits.grad, by_hand.detach())
    assert advantages.grad is None


def test_the_gradient_of_the_baseline_loss():
    values = _random(_T, _B).requires_grad_()
    targets = _random(_T, _B, seed=2).requires_grad_()
    loss = losses.baseline_loss(values, targets)
    torch.testing.assert_close(loss, (values - targets) ** 2 / 2)
    loss.sum().backward()
    torch.testing.assert_close(values.grad, (values - targets).detach())
    assert targets.grad is None


def test_the_huber_loss_and_its_gradient():
    assert base.BY_NAME["loss.baseline"].choices == ("squared", "huber")
    values = (3.0 * _random(_T, _B)).requires_grad_()
    targets = _random(_T, _B, seed=2).requires_grad_()
    loss = losses.huber_baseline_loss(values, targets, 1.5)
    loss.sum().backward()
    for row in range(_T):
        for column in range(_B):
            error = (values - targets)[row, column].item()
            if abs(error) <= 1.5:
                expected, slope = error**2 / 2, error
            else:
                expected = 1.5 * (abs(error) - 0.75)
                slope = math.copysign(1.5, error)
            assert loss[row, column].item() == pytest.approx(expected)
            assert values.grad[row, column].item() == pytest.approx(slope)
    assert targets.grad is None


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("ratio", [0.5, 0.75, 1.0, 1.25, 1.5])
def test_the_surrogate_has_no_gradient_where_it_was_clipped(advantage, ratio):
    ratios = torch.tensor([ratio], requires_grad=True)
    advantages = torch.tensor([advantage], requires_grad=True)
    loss = losses.surrogate_loss(ratios, advantages, 0.3)
    loss.backward()
    clipped = min(max(ratio, 0.7), 1.3)
    assert loss.item() == pytest.approx(-min(ratio * advantage, clipped * advantage))
    far = ratio > 1.3 if advantage > 0 else ratio < 0.7
    assert ratios.grad.item() == (0.0 if far else -advantage)
    assert advantages.grad is None


def test_reduce_counts_learnable_elements_once_and_divides_by_count():
    assert base.BY_NAME["loss.reduction"].choices == ("sum", "mean")
    loss = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])
    learnable = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert losses.reduce(loss, learnable, "sum", 6).item() == 27.0
    assert losses.reduce(loss, learnable, "mean", 6).item() == 27.0 / 6
    assert losses.reduce(loss, torch.ones(3, 2), "mean", 6) == loss.mean()


def test_rows_that_are_not_learnable_have_no_gradient():
    values = _random(_T, _B).requires_grad_()
    learnable = torch.ones(_T, _B)
    learnable[2, 1] = learnable[0, 3] = 0.0
    loss = losses.baseline_loss(values, torch.full((_T, _B), 9.0))
    losses.reduce(loss, learnable, "sum", _T * _B).backward()
    assert torch.equal(values.grad == 0.0, learnable == 0.0)


def _gradient(reduction, columns, learnable):
    """Of the pg and baseline losses in the weights of a small linear network."""
    inputs, actions = _random(_T, _B, 5)[:, columns], _actions()[:, columns]
    weights = _random(5, _A + 1, seed=3).requires_grad_()
    logits, values = (inputs @ weights).split([_A, 1], -1)
    terms = (
        losses.policy_gradient_loss(
            _log_probs(logits, actions), _random(_T, _B, seed=4)[:, columns]
        ),
        losses.baseline_loss(values[..., 0], _random(_T, _B, seed=5)[:, columns]),
    )
    mask = learnable[:, columns]
    sum(losses.reduce(term, mask, reduction, _T * _B) for term in terms).backward()
    return weights.grad


@pytest.mark.parametrize("reduction", base.BY_NAME["loss.reduction"].choices)
@pytest.mark.parametrize("size", [1, 2])
def test_gradients_of_micro_batches_add_up(reduction, size):
    learnable = torch.ones(_T, _B)
    learnable[1:4, 0] = learnable[5, 2] = 0.0  # more in one micro-batch than another
    parts = [
        _gradient(reduction, slice(start, start + size), learnable)
        for start in range(0, _B, size)
    ]
    whole = _gradient(reduction, slice(None), learnable)
    torch.testing.assert_close(sum(parts), whole)


def _quantiles():
    quantiles = (2.0 * _random(_T, _B, 3)).requires_grad_()
    generator = torch.Generator().manual_seed(4)
    fractions = torch.rand(_T, _B, 3, generator=generator, dtype=torch.float64)
    return quantiles, fractions, 2.0 * _random(_T, _B, 5, seed=2)


@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0])
def test_the_quantile_loss_is_a_triple_loop(kappa):
    """Over rows, quantiles of the prediction, and quantiles of the target."""
    quantiles, fractions, targets = _quantiles()
    targets.requires_grad_()
    loss = losses.quantile_loss(quantiles, fractions, targets, kappa)
    assert loss.shape == (_T, _B)
    loss.sum().backward()
    for row in itertools.product(range(_T), range(_B)):
        total = 0.0
        for i in range(3):
            slope = 0.0
            for j in range(5):
                error = (targets[row][j] - quantiles[row][i]).item()
                weight = abs(fractions[row][i].item() - (error < 0.0))
                if abs(error) <= kappa:
                    huber, derivative = error**2 / 2, error
                else:
                    huber = kappa * (abs(error) - kappa / 2)
                    derivative = math.copysign(kappa, error)
                total += weight * huber / kappa / 5
                slope -= weight * derivative / kappa / 5
            assert quantiles.grad[row][i].item() == pytest.approx(slope)
        assert loss[row].item() == pytest.approx(total)
    assert targets.grad is None


def test_a_single_quantile_at_one_half_is_half_of_huber():
    values, targets = 2.0 * _random(_T, _B), _random(_T, _B, seed=2)
    half = torch.full((_T, _B, 1), 0.5)
    found = losses.quantile_loss(values[..., None], half, targets[..., None], 1.0)
    expected = losses.huber_baseline_loss(values, targets, 1.0)
    torch.testing.assert_close(found, expected / 2.0)


def test_the_quantile_loss_is_least_at_the_quantiles():
    """Descent on draws of a distribution ends at its quantiles, for a small kappa."""
    targets = torch.linspace(-1.0, 3.0, 401, dtype=torch.float64)
    fractions = torch.tensor([0.1, 0.25, 0.5, 0.9]).double()
    quantiles = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        losses.quantile_loss(quantiles, fractions, targets, 0.01).backward()
        with torch.no_grad():
            quantiles -= 0.05 * quantiles.grad
            quantiles.grad.zero_()
    expected = -1.0 + 4.0 * fractions
    torch.testing.assert_close(quantiles.detach(), expected, rtol=0.0, atol=0.02)
