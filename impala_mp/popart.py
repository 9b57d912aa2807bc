"""PopArt: values learned at unit scale (Hessel et al. 2019, arXiv 1809.04474).

The statistics are buffers of the baseline head, and so are published, fetched and
saved with the parameters. What the head gives are plain values, as without PopArt.
"""

from typing import Any

import torch
from torch import nn

_MIN_SCALE, _MAX_SCALE = 1e-4, 1e6  # of sigma: the paper's bounds


class PopArtHead(nn.Linear):
    """V(x) = sigma (w . x + b) + mu; only w and b have a gradient."""

    mean: torch.Tensor  # mu, float32 [1]
    variance: torch.Tensor  # of the targets, float32 [1]

    def __init__(self, size: int) -> None:
        super().__init__(size, 1)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))

    @property
    def scale(self) -> torch.Tensor:
        """sigma, [1]."""
        return self.variance.sqrt().clamp(_MIN_SCALE, _MAX_SCALE)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., F] -> values [..., 1], not normalised."""
        return super().forward(inputs) * self.scale + self.mean

    @torch.no_grad()
    def moments(self, targets: torch.Tensor, learnable: torch.Tensor) -> torch.Tensor:
        """Count, and sums of G - mu and its square over learnable targets G: [3].

        Over the micro-batches of a batch they add up.
        """
        deviations = (targets - self.mean) * learnable
        sums = (learnable, deviations, deviations.square())
        return torch.stack([each.sum() for each in sums])

    @torch.no_grad()
    def adapt(self, moments: torch.Tensor, beta: float, finite: torch.Tensor) -> None:
        """Moves the statistics towards `moments`, and keeps every output as it was.

        The paper's (section 3.1), with nu the second moment and sigma^2 = nu - mu^2:

            mu' = (1-beta) mu + beta E[G],      nu' = (1-beta) nu + beta E[G^2]
            w'  = sigma/sigma' w,               b'  = (sigma b + mu - mu')/sigma'

        where the variance is moved itself, by d = E[G] - mu: sigma'^2 = (1-beta)
        sigma^2 + beta E[(G - mu)^2] - (beta d)^2 is the same, and does not cancel when
        mu is large beside sigma.

        Args:
          moments: of the whole batch.
          beta: step size, in (0, 1].
          finite: scalar 0 or 1; with 0 nothing changes. Neither does it where the
            moments are not finite, or of nothing.
        """
        count, first, second = moments / moments[0].clamp(min=1.0)
        moves = (finite * count > 0) & torch.isfinite(second)
        zero = torch.zeros_like(first)
        shift = torch.where(moves, beta * first, zero)
        growth = beta * (second - self.variance) - shift.square()
        old = self.scale
        self.variance.add_(torch.where(moves, growth, zero)).clamp_(min=0.0)
        ratio = old / self.scale
        self.weight.mul_(ratio)
        self.bias.mul_(ratio).sub_(shift / self.scale)
        self.mean.add_(shift)


def head(config: Any, network: nn.Module) -> PopArtHead | None:
    """The head of a network with PopArt; None where `config.loss.popart` is off."""
    if not config.loss.popart:
        return None
    found: PopArtHead = network.baseline  # type: ignore[assignment]
    return found
