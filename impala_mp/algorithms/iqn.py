"""IQN and QR-DQN: quantiles of the returns instead of their mean."""

from typing import Any

import torch

from impala_mp import types
from impala_mp.algorithms import actor_critic, dqn, losses, target_network

METRICS = ("loss/quantile", *dqn.METRICS[1:])


class IQNAlgorithm(dqn.DQNAlgorithm):
    """DQN whose network gives quantiles Z_tau(x, a) of the returns.

    IQN (Dabney et al. 2018, arXiv 1806.06923) draws the fractions tau in each pass.
    QR-DQN (Dabney et al. 2017, arXiv 1710.10044) has fixed ones. With the greedy action
    a* of DQN, which has the largest mean, the targets of Z(x_t, a_t) are

        r_t + ... + gamma^n Z'_tau'(x_{t+n}, a*)    for each of the N fractions tau'

    The loss is the quantile Huber loss over all pairs of tau and tau'. Without a target
    network Z' is Z: its fractions are those of another row, so they are independent.

    Hyperbolic rescaling maps quantiles exactly, because h is monotone. A value is then
    the mean at the scale of h. Priorities and metrics are of means.
    """

    metric_names: tuple[str, ...] = METRICS
    loss_name = METRICS[0]

    def __init__(
        self,
        settings: Any,
        kappa: float,
        critic: actor_critic.Critic,
        target: target_network.TargetNetwork | None,
    ) -> None:
        """`settings` is config.dqn, and `kappa` config.iqn.kappa."""
        super().__init__(settings, critic, target)
        self._kappa = kappa

    def _values(self, output: Any, action: torch.Tensor) -> torch.Tensor:
        """Returns the quantiles of the actions of the first rows: [rows, B, N]."""
        rows, (batch, count) = len(action), output.quantiles.shape[1:3]
        index = action[..., None, None].expand(rows, batch, count, 1)
        quantiles: torch.Tensor = output.quantiles[:rows].gather(-1, index)
        return quantiles.squeeze(-1)

    def _mean(self, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean over the quantiles: [T, B, N] -> [T, B]."""
        return targets.mean(-1)

    def _terms(
        self, network: Any, values: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Returns the loss of each transition, [T, B], in PopArt's units."""
        fractions = network.fractions[:-1]
        return losses.quantile_loss(values, fractions, targets, self._kappa)

    def _moments(
        self, batch: types.Trajectory, targets: torch.Tensor, learnable: torch.Tensor
    ) -> torch.Tensor | None:
        """Returns the moments of all quantiles of the targets [T, B, N]."""
        if self._critic.popart is None:
            return None
        task = self._critic.task_of(batch)
        if task is not None:
            task = task.unsqueeze(-1).expand_as(targets)
        learnable = learnable.unsqueeze(-1).expand_as(targets)
        return self._critic.popart.moments(targets, learnable, task)
