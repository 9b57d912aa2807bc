"""What the actor-critic algorithms share: the value side, the sum, the metrics."""

from typing import Any

import torch

from impala_mp import types
from impala_mp.algorithms import base, losses, replay_correction, vtrace
from impala_mp.networks import agent, popart

LOSS_METRICS = ("loss/policy_gradient", "loss/baseline", "loss/entropy")
VTRACE_METRICS = (
    "vtrace/rho_mean",
    "vtrace/rho_clipped",
    "vtrace/c_clipped",
    "vtrace/effective_sample_size",
    "vtrace/kl",
    "vtrace/value_mean",
)


class Critic:
    """V-trace's targets, and how far values are from them; PopArt's scale, if on."""

    def __init__(self, config: Any, policy: agent.Agent) -> None:
        self._config = config
        self._distribution = policy.distribution
        self._network = policy.network
        self._popart = popart.head(config, policy.network)

    def control(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        logits: torch.Tensor,
        values: torch.Tensor,
        count: int,
    ) -> replay_correction.Control:
        """What replay makes of the loss, given the learner's outputs [T, B, ...]."""
        if sample is None:
            return replay_correction.without_replay(batch)
        errors = self.normalised(batch, values - batch.agent_output.baseline)
        return replay_correction.control(
            batch, sample, logits, errors, self._distribution, self._config, count
        )

    def priorities(
        self,
        batch: types.Trajectory,
        returns: vtrace.VTraceReturns,
        control: replay_correction.Control,
        sample: types.Sample | None,
    ) -> torch.Tensor | None:
        """For the replay: [B]; None if there is none."""
        if sample is None:
            return None
        eta = self._config.replay.priority_eta
        deltas = self.normalised(batch, returns.deltas)
        return replay_correction.priorities(deltas, control.learnable, eta)

    def returns(
        self,
        batch: types.Trajectory,
        live: base.Live,
        log_rhos: torch.Tensor,
        values: torch.Tensor,
        learnable: torch.Tensor,
    ) -> vtrace.VTraceReturns:
        """V-trace of a batch; `log_rhos` [T, B], `values` V(x_0..x_T) [T+1, B].

        Its rhos are the true ones, also where targets are made without them.
        """
        settings, time_step = self._config.loss, batch.time_step
        log_rhos, corrected = log_rhos.detach(), self._config.vtrace.correction
        returns = vtrace.from_importance_weights(
            log_rhos=log_rhos if corrected else torch.zeros_like(log_rhos),
            discounts=time_step.discount[1:] * settings.discount_factor,
            rewards=losses.clip_rewards(time_step.reward[1:], settings.reward_clipping),
            values=values[:-1].detach(),
            bootstrap_value=values[-1].detach(),
            learnable=learnable,
            clip_rho_threshold=live.clip_rho_threshold,
            clip_pg_rho_threshold=live.clip_pg_rho_threshold,
            clip_c_threshold=live.clip_c_threshold,
            lambda_=self._config.vtrace.lambda_,
        )
        if not corrected:
            returns = returns._replace(rhos=log_rhos.exp() * learnable)
        return returns

    def normalised(self, batch: types.Trajectory, tensor: torch.Tensor) -> torch.Tensor:
        """Values or advantages [T, B] over PopArt's sigma; the same without PopArt."""
        if self._popart is None:
            return tensor
        return tensor / self._popart.scale_of(self._task(batch))

    def _task(self, batch: types.Trajectory) -> torch.Tensor | None:
        """Of each transition, [T, B]; None if there is but one."""
        task = self._network.task_of(batch.time_step)
        return None if task is None else task[:-1]

    def loss(
        self, batch: types.Trajectory, values: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """baseline_cost times the baseline's loss, in PopArt's units: [T, B]."""
        settings = self._config.loss
        values, targets = (self.normalised(batch, each) for each in (values, targets))
        if settings.baseline == "huber":
            delta = settings.huber_delta
            errors = losses.huber_baseline_loss(values, targets, delta)
        else:
            errors = losses.baseline_loss(values, targets)
        cost: torch.Tensor = settings.baseline_cost * errors
        return cost

    def moments(
        self, batch: types.Trajectory, targets: torch.Tensor, learnable: torch.Tensor
    ) -> torch.Tensor | None:
        """Of the targets, for PopArt to adapt to."""
        if self._popart is None:
            return None
        return self._popart.moments(targets, learnable, self._task(batch))


def total(
    terms: dict[str, torch.Tensor],
    control: replay_correction.Control,
    reduction: str,
    count: int,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The terms [T, B] reduced and added up with replay's, and each as a metric."""
    reduced = {
        name: losses.reduce(term, control.weights, reduction, count)
        for name, term in terms.items()
    }
    reduced.update(control.terms)
    metrics = {name: scalar.detach() for name, scalar in reduced.items()}
    total = torch.stack(list(reduced.values())).sum()
    return total, {**metrics, **control.metrics}


def elements(
    log_rhos: torch.Tensor,
    returns: vtrace.VTraceReturns,
    terms: dict[str, torch.Tensor],
    control: replay_correction.Control,
) -> dict[str, torch.Tensor]:
    """What the loss is made of, [T, B] each, in the order in which it is computed."""
    made = {
        "vtrace/log_rhos": log_rhos,
        "vtrace/deltas": returns.deltas,
        "vtrace/vs": returns.vs,
        "vtrace/pg_advantages": returns.pg_advantages,
    }
    return {**made, **terms, **control.elements}


@torch.no_grad()
def vtrace_metrics(
    rhos: torch.Tensor,
    kl: torch.Tensor,
    values: torch.Tensor,
    live: base.Live,
    count: int,
) -> dict[str, torch.Tensor]:
    """What the importance weights are like; `effective_sample_size` of each part.

    Args:
      kl: of the behaviour policy and the learner's, [T, B], 0 where not learnable.
    """
    effective = rhos.sum().square() / rhos.square().sum().clamp(min=1e-12)
    return {
        "vtrace/rho_mean": rhos.sum() / count,
        "vtrace/rho_clipped": (rhos > live.clip_rho_threshold).sum() / count,
        "vtrace/c_clipped": (rhos > live.clip_c_threshold).sum() / count,
        "vtrace/effective_sample_size": effective / count,
        "vtrace/kl": kl.sum() / count,
        "vtrace/value_mean": values.sum() / count,
    }
