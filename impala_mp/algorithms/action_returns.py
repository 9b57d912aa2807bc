"""Returns towards which action values are learned, and the scale of these values.

Index ranges: t in 0..T-1; transition t leads from x_t to x_{t+1}. Inputs are [T, B],
and values of states [T+1, B]. A transition that is not learnable, from LAST to FIRST,
ends every return at the value of its state: the returns are exact at a truncation.
Termination is a discount of 0. No result carries a gradient.
"""

import torch

from impala_mp.algorithms import vtrace

_EPSILON = 1e-3


@torch.no_grad()
def n_step(
    discounts: torch.Tensor,
    rewards: torch.Tensor,
    values: torch.Tensor,
    learnable: torch.Tensor,
    n: int,
) -> torch.Tensor:
    """Computes r_t + gamma_t r_{t+1} + ... + gamma_t .. gamma_{t+n-1} V(x_{t+n}).

    Fewer rewards count where the trajectory or the episode ends before. Sutton and
    Barto 2018, equation 7.1.

    Args:
      discounts: discount_factor times the environment's discount at x_{t+1}.
      values: V(x_0..x_T), [T+1, B]; or [T+1, B, N], with N quantiles of each.
      learnable: 0 from LAST to FIRST, 1 elsewhere.

    Returns:
      [T, B] or [T, B, N]; the value itself where a transition is not learnable.
    """
    if values.dim() > rewards.dim():  # each quantile gets the same rewards
        discounts, rewards = discounts.unsqueeze(-1), rewards.unsqueeze(-1)
        learnable = learnable.unsqueeze(-1)
    returns, learned = values, learnable > 0.0
    for _ in range(min(n, len(rewards))):
        longer = torch.where(learned, rewards + discounts * returns[1:], values[:-1])
        returns = torch.cat([longer, values[-1:]])
    return returns[:-1]


@torch.no_grad()
def until_decision(
    values: torch.Tensor,
    rewards: torch.Tensor,
    discounts: torch.Tensor,
    waits: torch.Tensor,
) -> torch.Tensor:
    """Replaces values of rows that wait by those of what is to come.

    `vtrace.until_decision` for values [T+1, B], or [T+1, B, N] with N quantiles each.
    """
    if values.dim() > rewards.dim():
        shape = (*rewards.shape, values.shape[-1])
        rewards, discounts, waits = (
            each.unsqueeze(-1).expand(shape) for each in (rewards, discounts, waits)
        )
    before = vtrace.until_decision(values[:-1], values[-1], rewards, discounts, waits)
    return torch.cat([before, values[-1:]])


@torch.no_grad()
def traced(
    discounts: torch.Tensor,
    rewards: torch.Tensor,
    values: torch.Tensor,
    action_values: torch.Tensor,
    traces: torch.Tensor,
    learnable: torch.Tensor,
) -> torch.Tensor:
    """Computes targets by a trace of coefficients c_t.

        delta_t  = r_t + gamma_t V(x_{t+1}) - Q(x_t, a_t)
        target_t = Q(x_t, a_t) + delta_t + gamma_t c_{t+1} (target_{t+1} - Q_{t+1})

    Retrace(lambda) has c = lambda min(1, pi/mu) (Munos et al. 2016, arXiv 1606.02647,
    equation 4), Q(lambda) with off-policy corrections c = lambda (Harutyunyan et al.
    2016, arXiv 1602.04951). Peng's Q(lambda) (Peng and Williams 1994) has
    c = lambda, and V(x_t) in the place of Q(x_t, a_t): then target_t is r_t + gamma_t
    ((1 - lambda) V(x_{t+1}) + lambda target_{t+1}).

    Args:
      discounts, values, learnable: as for `n_step`; V(x) is the expectation of Q under
        the policy that is learned.
      action_values: Q(x_t, a_t), or V(x_t).
      traces: c_t; c_0 is not read.

    Returns:
      [T, B]; Q(x_t, a_t) where a transition is not learnable.
    """
    deltas = learnable * (rewards + discounts * values[1:] - action_values)
    following = torch.cat([traces[1:], torch.zeros_like(traces[:1])])
    decays = learnable * discounts * following
    return action_values + vtrace.discounted_sums(deltas, decays)


def rescale(x: torch.Tensor) -> torch.Tensor:
    """Returns h(x) = sign(x) (sqrt(|x| + 1) - 1) + EPSILON x; any shape.

    Pohlen et al. 2018, arXiv 1805.11593, proposition A.2. Values are learned at the
    scale of h, so that returns of any size have errors of a like size. The form here,
    and that of the inverse, is accurate in float32 near 0, where the paper's cancels.
    """
    size = x.abs()
    return x / ((size + 1.0).sqrt() + 1.0) + _EPSILON * x


def restore(y: torch.Tensor) -> torch.Tensor:
    """Returns x with h(x) = y; any shape.

    With s = sqrt(|x| + 1) - 1, |y| = s + EPSILON s (s + 2). The root s is computed
    without a difference of like numbers.
    """
    size, slope = y.abs(), 1.0 + 2.0 * _EPSILON
    root = 2.0 * size / (slope + (slope * slope + 4.0 * _EPSILON * size).sqrt())
    return y.sign() * root * (root + 2.0)
