"""PopArt: values learned at unit scale (Hessel et al. 2019, arXiv 1809.04474).

Each task has one scale and one row of the head. The statistics are buffers of the
baseline head, so they are published, fetched and saved with the parameters. The head
returns plain values, as without PopArt.
"""

import torch
from torch import nn
from torch.nn import functional

from impala_mp.config import base
from impala_mp.networks import initialisers

MIN_SCALE, MAX_SCALE = base.POPART_SCALES


class PopArtHead(nn.Linear):
    """Value head V(x) = sigma (w . x + b) + mu; only w and b have a gradient.

    `task` is int64 [...], from 0; None with a single task. A head of action values has
    an output an action, all at the scale of their task.
    """

    mean: torch.Tensor  # mu, float32 [tasks]
    variance: torch.Tensor  # of the targets, float32 [tasks]

    def __init__(self, size: int, num_tasks: int = 1, num_outputs: int = 1) -> None:
        super().__init__(size, num_tasks * num_outputs)
        self._shape = (num_tasks, num_outputs)
        self.register_buffer("mean", torch.zeros(num_tasks))
        self.register_buffer("variance", torch.ones(num_tasks))

    @property
    def scale(self) -> torch.Tensor:
        """sigma, [tasks]."""
        return self.variance.sqrt().clamp(MIN_SCALE, MAX_SCALE)

    def scale_of(self, task: torch.Tensor | None) -> torch.Tensor:
        """Returns sigma per element: [...], or [1] without tasks."""
        return self.scale if task is None else self.scale[task]

    def forward(
        self, inputs: torch.Tensor, task: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[..., F] -> values [..., outputs], unnormalised."""
        scale, mean = self._each(self.scale), self._each(self.mean)
        values = super().forward(inputs) * scale + mean
        if task is None:
            return values
        index = task[..., None, None].expand(*task.shape, 1, self._shape[1])
        return values.unflatten(-1, self._shape).gather(-2, index).squeeze(-2)

    def _each(self, statistic: torch.Tensor) -> torch.Tensor:
        """[tasks] -> [tasks * outputs]."""
        outputs = self._shape[1]
        return statistic if outputs == 1 else statistic.repeat_interleave(outputs)

    def moments(
        self,
        targets: torch.Tensor,
        learnable: torch.Tensor,
        task: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns `moments` of G - mu, over learnable targets G: float64 [tasks, 3]."""
        return moments(targets, learnable, task, self._shape[0], self.mean)

    @torch.no_grad()
    def adapt(
        self,
        moments: torch.Tensor,
        beta: float,
        finite: torch.Tensor,
        batches: torch.Tensor,
    ) -> None:
        """Moves the statistics towards `moments`; every output stays the same.

        By section 3.1 of the paper, with nu the second moment and sigma^2 = nu - mu^2:

            mu' = (1-beta) mu + beta E[G],      nu' = (1-beta) nu + beta E[G^2]
            w'  = sigma/sigma' w,               b'  = (sigma b + mu - mu')/sigma'

        The code moves the variance instead of nu. With d = E[G] - mu and v the variance
        of G, sigma'^2 = (1-beta) sigma^2 + beta v + beta (1-beta) d^2 is equal, and
        does not cancel when mu is large compared with sigma.

        The step size of a task's t-th batch is max(beta, 1/t), so that the statistics
        begin at the first batch's. Its outputs then follow them, because a fresh head
        would take long to travel from 0 to a distant mean. A batch of equal targets has
        no scale: its variance moves by beta.

        Args:
          moments: of the whole batch, float64 [tasks, 3].
          beta: step size, in (0, 1].
          finite: scalar 0 or 1; with 0 nothing changes. A task whose moments are not
            finite, or whose count is 0, does not change either.
          batches: float32 [tasks], the number of batches before; 1 is added in place.
        """
        count, first, second = (moments / moments[:, :1].clamp(min=1.0)).unbind(-1)
        moves = (finite * count > 0) & torch.isfinite(second.float())
        spread = (second - first.square()).clamp(min=0.0)
        batches.add_(moves)
        rate = batches.double().clamp(min=1.0).reciprocal().clamp(min=beta)
        begins = moves & (batches == 1.0)
        slow = torch.where(spread < MIN_SCALE**2, beta, rate)
        growth = slow * (spread - self.variance)
        growth += rate * (1.0 - rate) * first.square()
        zero = torch.zeros_like(first)
        shift = torch.where(moves, rate * first, zero).float()
        old = self.scale
        self.variance.add_(torch.where(moves, growth, zero)).clamp_(min=0.0)
        new = self.scale
        ratio = torch.where(begins, 1.0, old / new).unsqueeze(-1)
        self.weight.view(*self._shape, -1).mul_(ratio.unsqueeze(-1))
        moved = torch.where(begins, 0.0, shift / new).unsqueeze(-1)
        self.bias.view(self._shape).mul_(ratio).sub_(moved)
        self.mean.add_(shift)


@torch.no_grad()
def moments(
    values: torch.Tensor,
    weights: torch.Tensor,
    task: torch.Tensor | None,
    num_tasks: int,
    mean: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Returns count, sum and sum of squares of `values` - `mean`, by task.

    Those of micro-batches add up to those of the batch.

    Args:
      weights: 1 for the values that count, else 0.
      mean: of each task, [tasks], or of all.

    Returns:
      float64 [tasks, 3]: the variance of values far from the mean is not lost.
    """
    weights = weights.unsqueeze(-1).double()
    if task is not None:
        weights = weights * functional.one_hot(task, num_tasks)
    deviations = (values.unsqueeze(-1) - mean) * weights
    sums = (weights, deviations, deviations.square())
    return torch.stack([each.flatten(0, -2).sum(0) for each in sums], -1)


def value_head(
    size: int, num_tasks: int, with_popart: bool, num_outputs: int = 1
) -> nn.Linear:
    """Makes a head of values over features of `size` numbers."""
    made = (
        PopArtHead(size, num_tasks, num_outputs)
        if with_popart
        else nn.Linear(size, num_outputs)
    )
    return initialisers.orthogonal(made, 1.0)


def head(network: nn.Module) -> PopArtHead | None:
    """Returns the PopArt head of a network, or None if it has another value head."""
    modules = network.modules()
    return next((each for each in modules if isinstance(each, PopArtHead)), None)
