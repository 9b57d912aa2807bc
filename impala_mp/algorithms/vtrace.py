"""V-trace targets and advantages (Espeholt et al. 2018, arXiv 1802.01561, section 4).

Index ranges: t in 0..T-1; transition t leads from x_t to x_{t+1}. All inputs are
[T, B]; `bootstrap_value` is V(x_T), [B]. No result carries a gradient.
"""

from typing import NamedTuple

import torch


class VTraceReturns(NamedTuple):
    """Targets, advantages, ratios and temporal-difference errors: [T, B] each."""

    vs: torch.Tensor
    pg_advantages: torch.Tensor
    rhos: torch.Tensor  # unclipped pi/mu, 0 where the transition is not learnable
    deltas: torch.Tensor  # delta_t, the temporal-difference errors


Threshold = float | torch.Tensor  # a scalar; inf for no clipping


def discounted_sums(deltas: torch.Tensor, decays: torch.Tensor) -> torch.Tensor:
    """Solves y_t = deltas_t + decays_t * y_{t+1}, y_T = 0, in ceil(log2 T) steps.

    Recursive doubling: after k rounds y_t is the sum over 2^k rows. A loop over T would
    launch T small kernels, which dominate the cost on a device.
    """
    sums, shift = deltas, 1
    while shift < deltas.shape[0]:
        sums = torch.cat(
            [sums[:-shift] + decays[:-shift] * sums[shift:], sums[-shift:]]
        )
        decays = torch.cat([decays[:-shift] * decays[shift:], decays[-shift:]])
        shift *= 2
    return sums


@torch.no_grad()
def from_importance_weights(
    log_rhos: torch.Tensor,
    discounts: torch.Tensor,
    rewards: torch.Tensor,
    values: torch.Tensor,
    bootstrap_value: torch.Tensor,
    learnable: torch.Tensor,
    *,
    clip_rho_threshold: Threshold = 1.0,
    clip_pg_rho_threshold: Threshold = 1.0,
    clip_c_threshold: Threshold = 1.0,
    lambda_: float = 1.0,
    waits: torch.Tensor | None = None,
) -> VTraceReturns:
    """Computes V-trace, exact at termination, truncation and reset (equation 1).

        rho_t   = min(clip_rho_threshold, pi/mu)
        c_t     = lambda_ * min(clip_c_threshold, pi/mu)
        delta_t = rho_t (r_t + gamma_t V(x_{t+1}) - V(x_t))
        vs_t    = V(x_t) + delta_t + gamma_t c_t (vs_{t+1} - V(x_{t+1}))
        adv_t   = min(clip_pg_rho_threshold, pi/mu)
                  (r_t + gamma_t (lambda_ vs_{t+1} + (1-lambda_) V(x_{t+1})) - V(x_t))

    A transition that is not learnable (LAST to FIRST, whose action was ignored) gets
    rho = c = 0, hence vs = V there. That alone cuts the trace at a truncation: the
    row before the cut bootstraps from vs_{t+1} = V(x_{t+1}). Termination is a discount
    of 0. With lambda_ < 1 the advantage mixes vs and V as in rlax, not as in SEED RL.

    In rows where a player waits for the others, nothing is decided. There rho = c = 1
    for any thresholds and lambda_, and `until_decision` replaces V(x_t), so that
    delta_t = 0. Targets then equal those of the decisions alone, with the rewards of
    the rows in between added to them. The result has rho = adv = 0 in rows that wait.

    Args:
      log_rhos: log(pi(a_t|x_t) / mu(a_t|x_t)); of the joint action.
      discounts: discount_factor times the environment's discount at x_{t+1}.
      rewards: r_t, of the transition from x_t to x_{t+1}.
      values: V(x_t) under the learner's parameters.
      bootstrap_value: V(x_T).
      learnable: 0 on LAST to FIRST and where replay leaves out, 1 elsewhere.
      clip_rho_threshold: rho-bar; inf for no clipping. The other two likewise.
      waits: 1 where a player waits, 0 elsewhere; None: none does. The discount
        factor is in the `discounts` of transitions to a decision alone.
    """
    rhos = log_rhos.exp() * learnable
    clipped_rhos = rhos.clamp(max=clip_rho_threshold)
    cs = lambda_ * rhos.clamp(max=clip_c_threshold)
    if waits is not None:
        rhos = rhos * (1.0 - waits)
        clipped_rhos, cs = (
            torch.where(waits > 0.0, waits, x) for x in (clipped_rhos, cs)
        )
        values = until_decision(values, bootstrap_value, rewards, discounts, waits)
    next_values = torch.cat([values[1:], bootstrap_value[None]])
    deltas = clipped_rhos * (rewards + discounts * next_values - values)
    vs = values + discounted_sums(deltas, discounts * cs)
    next_vs = torch.cat([vs[1:], bootstrap_value[None]])
    targets = rewards + discounts * torch.lerp(next_values, next_vs, lambda_)
    pg_advantages = rhos.clamp(max=clip_pg_rho_threshold) * (targets - values)
    return VTraceReturns(vs, pg_advantages, rhos, deltas)


def until_decision(
    values: torch.Tensor,
    bootstrap_value: torch.Tensor,
    rewards: torch.Tensor,
    discounts: torch.Tensor,
    waits: torch.Tensor,
) -> torch.Tensor:
    """Replaces values of rows that wait by those of what is to come.

        V'_t = r_t + d_t V'_{t+1} where it waits, V(x_t) elsewhere; V'_T = V(x_T)

    Returns:
      [T, B].
    """
    deltas = torch.where(waits > 0.0, rewards, values)
    found = discounted_sums(
        torch.cat([deltas, bootstrap_value[None]]),
        torch.cat([discounts * waits, torch.zeros_like(bootstrap_value)[None]]),
    )
    return found[:-1]
