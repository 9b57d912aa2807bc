"""Replay's part in a loss: mask, importance weights, cloning, priorities.

A transition that replay leaves out is treated like one across a reset. It is not
learned, and the trace is cut there: the transition before bootstraps from V.
"""

from typing import Any, NamedTuple

import torch

from impala_mp import types
from impala_mp.config import derived
from impala_mp.networks.distributions import base as distribution_base

_METRICS = (
    "loss/policy_cloning",
    "loss/value_cloning",
    "replay/dropped_share",  # of the replayed transitions, by the trust region
)


def metric_names(settings: Any) -> tuple[str, ...]:
    """Returns the metrics that `control` adds, with `config.replay`."""
    return _METRICS if settings.ratio else ()


class Control(NamedTuple):
    """Mask and weights of a loss, and replay's terms of it."""

    learnable: torch.Tensor  # [T, B] 0 or 1, for targets: no trace crosses a 0
    weights: torch.Tensor  # [T, B], of the algorithm's terms; 0 where not learnable
    terms: dict[str, torch.Tensor]  # [T, B] to be added to the loss, by metric name
    term_weights: torch.Tensor  # [T, B], of `terms`
    metrics: dict[str, torch.Tensor]  # further scalars, without a gradient


def without_replay(learnable: torch.Tensor) -> Control:
    """Leaves the mask [T, B] as it is, and weighs each learnable transition 1."""
    return Control(learnable, learnable, {}, learnable, {})


def control(
    learnable: torch.Tensor,
    sample: types.Sample,
    recorded_logits: torch.Tensor,
    logits: torch.Tensor,
    value_errors: torch.Tensor,
    distribution: distribution_base.ActionDistribution,
    settings: Any,
    num_replayed: int,
    acts: torch.Tensor | None = None,
) -> Control:
    """Applies trust region, weights and cloning to replayed columns.

    The cloning terms are CLEAR's (Rolnick et al. 2019, arXiv 1811.11682):

        clear_policy_cost KL(mu || pi) + clear_value_cost (V(x_t) - recorded V(x_t))^2

    Args:
      learnable: 1 where a transition was acted, else 0: [T, B].
      recorded_logits: of the behaviour policy mu, [T, B, L].
      logits: of the learner's policy pi, [T, B, L].
      value_errors: V of the learner minus the recorded V, [T, B].
      settings: config.replay.
      num_replayed: replayed transitions of the whole batch, not of a micro-batch.
      acts: 0 where a player waits and no policy matters, else 1: [T, B]; None: all 1.
    """
    mask = 1.0 if acts is None else acts
    # Cloning also applies to transitions outside of the trust region. It holds on to
    # the recorded policy, epsilon and temperature included.
    cloned = learnable * sample.weight * sample.replayed
    terms = {
        "loss/policy_cloning": settings.clear_policy_cost
        * distribution.kl(recorded_logits, logits)
        * mask,
        "loss/value_cloning": settings.clear_value_cost * value_errors.square(),
    }
    before = learnable
    if settings.trust_region:
        kl = distribution.kl(logits.detach(), recorded_logits) * mask
        learnable = within_trust_region(learnable, sample, kl, settings.trust_region)
    dropped = (before - learnable).sum() / num_replayed
    metrics = {"replay/dropped_share": dropped}
    return Control(learnable, learnable * sample.weight, terms, cloned, metrics)


def within_trust_region(
    learnable: torch.Tensor,
    sample: types.Sample,
    kl: torch.Tensor,
    threshold: float,
) -> torch.Tensor:
    """Clears `learnable` [T, B] in replayed transitions that are too far off-policy.

    KL(pi || mu) must not exceed the threshold, over all actions of the state. pi is the
    learner's current policy, also with IMPACT. mu is the recorded behaviour policy,
    epsilon and temperature included.

    The idea is LASER's (Schmitt et al. 2020, arXiv 1909.11583, section 4), the measure
    is not. LASER measures how far the policy that V-trace's clipping implies, in
    proportion to min(rho-bar mu, pi), is from the target policy. Here neither that
    policy nor a target network takes part, so no threshold of the paper applies.

    Args:
      kl: KL(pi || mu) in nats, [T, B].
      threshold: in nats.
    """
    return learnable * (1.0 - (kl > threshold) * sample.replayed)


def priorities(
    deltas: torch.Tensor, learnable: torch.Tensor, eta: float
) -> torch.Tensor:
    """Computes eta max |delta| + (1 - eta) mean |delta| over the learnable rows: [B].

    R2D2 (Kapturowski et al. 2019, section 2.3). `deltas` are V-trace's, [T, B].
    """
    errors = (deltas * learnable).abs().detach()
    mean = errors.sum(0) / learnable.sum(0).clamp(min=1.0)
    return eta * errors.amax(0) + (1.0 - eta) * mean


def all_fresh(config: Any) -> types.Sample | None:
    """Returns the sample of a batch without replayed columns; None without replay."""
    if not derived.has_replay(config):
        return None
    device, size = config.learner.device, config.batch_size
    return types.Sample(
        torch.ones(size, device=device), torch.zeros(size, device=device)
    )
