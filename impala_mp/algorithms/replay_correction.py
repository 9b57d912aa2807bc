"""What a loss makes of replayed trajectories: masks, weights, cloning, priorities.

A transition that replay leaves out is treated like one across a reset: it is not
learned, and the trace is cut there, so that the one before bootstraps from V.
"""

from typing import Any, NamedTuple

import torch

from impala_mp import types
from impala_mp.algorithms import base, losses
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
    """What a loss needs beside its own terms."""

    learnable: torch.Tensor  # [T, B] 0 or 1, for targets: no trace leads across a 0
    weights: torch.Tensor  # [T, B], of each element in the loss; 0 where not learnable
    terms: dict[str, torch.Tensor]  # scalars to be added to the loss, by metric name
    metrics: dict[str, torch.Tensor]  # further ones, without a gradient
    elements: dict[str, torch.Tensor]  # [T, B] that the terms are made of


def without_replay(batch: types.Trajectory) -> Control:
    """Every transition that was acted counts, and as it is."""
    learnable = base.learnable(batch)
    return Control(learnable, learnable, {}, {}, {})


def control(
    batch: types.Trajectory,
    sample: types.Sample,
    logits: torch.Tensor,
    value_errors: torch.Tensor,
    distribution: distribution_base.ActionDistribution,
    config: Any,
    count: int,
) -> Control:
    """Burn-in, trust region, importance weights and cloning, as in config.replay.

    They touch replayed columns only.

    Args:
      logits: of the learner's policy, [T, B, L].
      value_errors: V of the learner minus the recorded one, [T, B].
      count: T * B of the whole batch, not of a micro-batch.
    """
    learnable = base.learnable(batch)
    settings, recorded = config.replay, batch.agent_output
    learnable = after_burn_in(learnable, sample, settings.burn_in)
    # Cloning also holds on to what the trust region leaves out; and to the policy as it
    # acted, epsilon and temperature included, for that is what is recorded.
    cloned = learnable * sample.weight * sample.replayed
    clones = {
        "loss/policy_cloning": settings.clear_policy_cost
        * distribution.kl(recorded.policy_logits, logits),
        "loss/value_cloning": settings.clear_value_cost * value_errors.square(),
    }
    terms = {
        name: losses.reduce(term, cloned, config.loss.reduction, count)
        for name, term in clones.items()
    }
    before = learnable
    if settings.trust_region:
        kl = distribution.kl(logits.detach(), recorded.policy_logits)
        learnable = within_trust_region(learnable, sample, kl, settings.trust_region)
    dropped = (before - learnable).sum() / (
        config.unroll_length * derived.num_replayed(config)
    )
    metrics = {"replay/dropped_share": dropped}
    return Control(learnable, learnable * sample.weight, terms, metrics, clones)


def after_burn_in(
    learnable: torch.Tensor, sample: types.Sample, burn_in: int
) -> torch.Tensor:
    """`learnable` [T, B] without the first `burn_in` rows of what is replayed.

    They make the recurrent state again from the one that was stored, under today's
    parameters (R2D2: Kapturowski et al. 2019, section 3). The state carries a gradient.
    """
    if not burn_in:
        return learnable
    rows = torch.arange(len(learnable), device=learnable.device)
    return learnable * (1.0 - (rows < burn_in)[:, None] * sample.replayed)


def within_trust_region(
    learnable: torch.Tensor,
    sample: types.Sample,
    kl: torch.Tensor,
    threshold: float,
) -> torch.Tensor:
    """`learnable` [T, B] without the replayed transitions that are too far off-policy.

    Those are left out whose KL(pi || mu) is above the threshold, over all actions of
    their state: pi is the learner's current policy, with IMPACT too, and mu the
    recorded behaviour policy, epsilon and temperature included.

    The idea is LASER's (Schmitt et al. 2020, arXiv 1909.11583, section 4), the measure
    is not: LASER asks how far the policy that V-trace's clipping implies, in proportion
    to min(rho-bar mu, pi), is from the target policy. Here neither that nor a target
    network takes part, and no threshold of the paper's can be taken over.

    Args:
      kl: KL(pi || mu) in nats, [T, B].
    """
    return learnable * (1.0 - (kl > threshold) * sample.replayed)


def priorities(
    deltas: torch.Tensor, learnable: torch.Tensor, eta: float
) -> torch.Tensor:
    """eta max |delta| + (1 - eta) mean |delta| over the learnable rows: [B].

    R2D2 (Kapturowski et al. 2019, section 2.3). `deltas` are V-trace's [T, B].
    """
    errors = (deltas * learnable).abs().detach()
    mean = errors.sum(0) / learnable.sum(0).clamp(min=1.0)
    return eta * errors.amax(0) + (1.0 - eta) * mean


def all_fresh(config: Any) -> types.Sample | None:
    """That of a batch without anything replayed; None if there is no replay."""
    if not config.replay.ratio:
        return None
    device, size = config.learner.device, config.batch_size
    return types.Sample(
        torch.ones(size, device=device), torch.zeros(size, device=device)
    )
