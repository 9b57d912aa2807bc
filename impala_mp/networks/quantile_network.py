"""Quantile network: Q-network whose head gives quantiles of the returns.

The mean of the quantiles is the value. Actors and learner take it at the same fixed
fractions, so values are deterministic, comparable and can be exported. dqn_zoo draws
fractions to act by.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from impala_mp import types
from impala_mp.networks import initialisers, linear, popart, q_network


def midpoints(count: int, device: torch.device) -> torch.Tensor:
    """Returns the middles of `count` equal parts of [0, 1]: float32 [count]."""
    return (torch.arange(count, device=device) + 0.5) / count


class _Quantiles(nn.Module):
    """Base of the heads: one linear layer, which is the one that PopArt normalises."""

    def __init__(
        self, size: int, num_tasks: int, with_popart: bool, num_outputs: int
    ) -> None:
        super().__init__()
        self.output = popart.value_head(size, num_tasks, with_popart, num_outputs)
        self._with_popart = with_popart

    def _outputs(
        self, features: torch.Tensor, task: torch.Tensor | None
    ) -> torch.Tensor:
        """[..., F] and the task [...] -> [..., outputs]."""
        inputs = (features, task) if self._with_popart else (features,)
        outputs: torch.Tensor = self.output(*inputs)
        return outputs


class FixedQuantiles(_Quantiles):
    """Quantiles at the midpoints of N fractions (QR-DQN).

    Dabney et al. 2017, arXiv 1710.10044, algorithm 1.
    """

    def __init__(
        self,
        size: int,
        num_actions: int,
        settings: Any,
        num_tasks: int,
        with_popart: bool,
    ) -> None:
        """`settings` is config.iqn."""
        outputs = settings.quantiles * num_actions
        super().__init__(size, num_tasks, with_popart, outputs)
        self._shape = (settings.quantiles, num_actions)

    def forward(
        self, features: torch.Tensor, task: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the values, [T, B, F] -> [T, B, A]; `task` is [T, B]."""
        return self.learned(features, task)[0]

    def learned(
        self, features: torch.Tensor, task: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns values [T, B, A], quantiles [T, B, N, A], fractions [T, B, N]."""
        quantiles = self._outputs(features, task).unflatten(-1, self._shape)
        fractions = midpoints(self._shape[0], features.device)
        return quantiles.mean(-2), quantiles, fractions.expand(quantiles.shape[:-1])


class _Embedding(nn.Linear):
    """phi(tau) = relu(w cos(pi i tau) + b), with i from 0 to `embedding` - 1."""

    def forward(self, fractions: torch.Tensor) -> torch.Tensor:
        """[...] -> [..., F]."""
        weight = self.weight
        i = torch.arange(self.in_features, dtype=weight.dtype, device=weight.device)
        cosines = torch.cos(torch.pi * i * fractions.unsqueeze(-1))
        return functional.relu(linear.linear(cosines, weight, self.bias))


class DrawnQuantiles(_Quantiles):
    """Quantiles at any fractions (IQN).

    Dabney et al. 2018, arXiv 1806.06923, equation 4, with a linear layer after the
    product of features and phi(tau):

        quantile(x, a, tau) = w_a . (features(x) * phi(tau)) + b_a

    The paper has a hidden layer in between. Without it the mean of quantiles is the
    layer's output for the mean of phi. So the cost for each row does not depend on the
    number of acting fractions.
    """

    def __init__(
        self,
        size: int,
        num_actions: int,
        settings: Any,
        num_tasks: int,
        with_popart: bool,
    ) -> None:
        """`settings` is config.iqn."""
        super().__init__(size, num_tasks, with_popart, num_actions)
        self.embedding = initialisers.orthogonal(_Embedding(settings.embedding, size))
        self._quantiles = settings.quantiles
        self._acting_quantiles = settings.acting_quantiles

    def forward(
        self, features: torch.Tensor, task: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the values, [T, B, F] -> [T, B, A]; `task` is [T, B]."""
        acting = midpoints(self._acting_quantiles, features.device)
        # Not called as a module: hooks see layers row by row, and this has no rows.
        return self._outputs(features * self.embedding.forward(acting).mean(0), task)

    def learned(
        self, features: torch.Tensor, task: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns values [T, B, A], quantiles [T, B, N, A], fractions [T, B, N].

        Fractions are drawn from torch's default generator, column by column, so that
        the micro-batches of a batch draw the same numbers as the batch (on a CPU).
        """
        values = self(features, task)
        rows, columns = features.shape[:2]
        shape = columns, rows, self._quantiles
        fractions = torch.rand(shape, device=features.device).transpose(0, 1)
        fractions = fractions.contiguous()
        if task is not None:
            task = task.unsqueeze(-1).expand_as(fractions)
        inputs = features.unsqueeze(-2) * self.embedding(fractions)
        return values, self._outputs(inputs, task), fractions


_HEADS = {"drawn": DrawnQuantiles, "fixed": FixedQuantiles}


class QuantileNetwork(q_network.QNetwork):
    """Q-network with quantiles; it acts by their mean."""

    def _make_heads(self, size: int, config: Any, num_tasks: int) -> None:
        num_actions, settings = self._distribution.num_logits, config.iqn
        make = _HEADS[settings.fractions]
        with_popart = self._with_popart
        self.baseline = make(size, num_actions, settings, num_tasks, with_popart)

    def _learned(
        self,
        output: torch.Tensor,
        of_values: torch.Tensor,
        time_step: types.TimeStep,
    ) -> tuple[torch.Tensor, ...]:
        """Maps [T+1, B, F] to the fields of agent.QuantileOutput."""
        head: DrawnQuantiles | FixedQuantiles = self.baseline  # type: ignore[assignment]
        values, *others = head.learned(output, self.task_of(time_step))
        q_values = self._masked(values, time_step)
        return q_values, q_values.amax(-1), *others
