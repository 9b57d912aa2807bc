"""Terms of the losses, each [T, B], and their reduction."""

from typing import Any

import torch

from impala_mp import errors, types
from impala_mp.config import base


def clip_rewards(rewards: torch.Tensor, clipping: str) -> torch.Tensor:
    """Returns the rewards that are learned; logged returns are not clipped.

    "soft_asymmetric" is 5 tanh(r/5), times 0.3 if negative (IMPALA, appendix D).
    """
    if clipping == "none":
        return rewards
    if clipping == "abs_one":
        return rewards.clamp(-1.0, 1.0)
    if clipping == "soft_asymmetric":
        squeezed = torch.tanh(rewards / 5.0)
        return torch.where(rewards < 0, 0.3 * squeezed, squeezed) * 5.0
    raise errors.BadInput(
        f"loss.reward_clipping ({clipping!r}) must be one of"
        f" {base.BY_NAME['loss.reward_clipping'].choices}."
    )


def rewards(
    batch: types.Trajectory, settings: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the rewards that are learned, and the discounts: [T, B] each.

    The discount factor applies once a decision. What comes while a player waits
    counts like a reward of its decision before: its time stands still.

    Args:
      settings: config.loss.
    """
    time_step, factor = batch.time_step, settings.discount_factor
    clipped = clip_rewards(time_step.reward[1:], settings.reward_clipping)
    if not isinstance(time_step.acts, tuple):
        passes = time_step.acts | (time_step.step_type == types.StepType.LAST)
        factor = torch.where(passes[1:], factor, 1.0)
    return clipped, time_step.discount[1:] * factor


def policy_gradient_loss(
    log_probs: torch.Tensor, advantages: torch.Tensor
) -> torch.Tensor:
    """Returns -log pi(a_t|x_t) adv_t (IMPALA, section 4.2): [T, B].

    No gradient flows through `advantages`.
    """
    return -log_probs * advantages.detach()


def baseline_loss(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns (vs_t - V(x_t))^2 / 2 (IMPALA, section 4.2): [T, B].

    No gradient flows through `targets`.
    """
    return 0.5 * (targets.detach() - values).square()


def huber_baseline_loss(
    values: torch.Tensor, targets: torch.Tensor, delta: float
) -> torch.Tensor:
    """Returns e^2/2 for errors |e| <= delta, else delta (|e| - delta/2) (Huber 1964).

    No gradient flows through `targets`.
    """
    return torch.nn.functional.huber_loss(
        values, targets.detach(), reduction="none", delta=delta
    )


def quantile_loss(
    quantiles: torch.Tensor,
    fractions: torch.Tensor,
    targets: torch.Tensor,
    kappa: float,
) -> torch.Tensor:
    """Returns the quantile Huber loss: the sum over i of the mean over j of

        |tau_i - [e_ij < 0]| Huber_kappa(e_ij) / kappa,   e_ij = target_j - quantile_i

    Dabney et al. 2017, arXiv 1710.10044, equation 10; 2018, arXiv 1806.06923, equation
    3. The papers divide by kappa, rlax does not. No gradient flows through `targets`.

    Args:
      quantiles: of the prediction, [..., N].
      fractions: tau of each, [..., N].
      targets: quantiles of the target, [..., N'].
      kappa: error where the loss becomes linear.

    Returns:
      [...].
    """
    predicted, target = torch.broadcast_tensors(
        quantiles.unsqueeze(-1), targets.unsqueeze(-2)
    )
    huber = huber_baseline_loss(predicted, target, kappa)
    weights = (fractions.unsqueeze(-1) - (target < predicted).float()).abs()
    return (weights * huber).mean(-1).sum(-1) / kappa


def value_loss(
    values: torch.Tensor, targets: torch.Tensor, settings: Any
) -> torch.Tensor:
    """Returns the error's loss that `config.loss` names: [T, B].

    No gradient flows through `targets`.
    """
    if settings.baseline == "huber":
        return huber_baseline_loss(values, targets, settings.huber_delta)
    return baseline_loss(values, targets)


def surrogate_loss(
    ratios: torch.Tensor, advantages: torch.Tensor, clip_range: float
) -> torch.Tensor:
    """Returns -min(R adv, clip(R, 1 - clip_range, 1 + clip_range) adv): [T, B].

    PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7). No
    gradient flows through `advantages`, nor through R where the clip is the minimum.
    """
    advantages = advantages.detach()
    clipped = ratios.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.minimum(ratios * advantages, clipped * advantages)


def reduce(
    loss: torch.Tensor, learnable: torch.Tensor, reduction: str, count: int
) -> torch.Tensor:
    """Sums elements weighted by `learnable`; "mean" divides by `count`.

    Args:
      loss: [..., T, B].
      learnable: [T, B].
      count: T * B of the whole batch, not of a micro-batch, so that the gradients of
        micro-batches add up to that of the batch.

    Returns:
      [...].
    """
    total = (loss * learnable).sum((-2, -1))
    return total / count if reduction == "mean" else total
