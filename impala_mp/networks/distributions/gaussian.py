"""Distributions over real numbers: normals, and tanh-normals within bounds."""

import math

import numpy as np
import torch
from torch.nn import functional

from impala_mp import specs
from impala_mp.networks.distributions import base


class Gaussian:
    """Independent normals; logits are all means, then all log standard deviations.

    The latter do not depend on the observation. If the space is bounded, the action is
    a = low + (high - low) (tanh(u) + 1) / 2 of the normal u. Trajectories store u, so
    densities and their ratios lose no precision at the bounds. Otherwise (a bound is
    missing, or as wide as the dtype) the environment gets u itself, clipped to the
    bounds there are.
    """

    def __init__(self, spec: specs.BoxSpec) -> None:
        self._shape = spec.shape
        self._squash = spec.is_bounded
        self.encoding_size = math.prod(spec.shape)
        self.num_logits = 2 * self.encoding_size
        self.free = (False,) * self.encoding_size + (True,) * self.encoding_size
        self._to_environment = specs.to_environment(spec)
        self._log_scale = 0.0
        if self._squash:
            spans = np.subtract(spec.high, spec.low)
            self._log_scale = float(np.log(spans / 2.0).sum())
        # E f(u) = sum of weights f(mean + std nodes): exact to rounding for a function
        # as smooth as log(da/du), at the deviations of policies.
        nodes, weights = np.polynomial.hermite_e.hermegauss(32)
        rows = np.stack([nodes, weights / weights.sum()])
        on_cpu = torch.tensor(rows, dtype=torch.float32)
        self._quadrature = {on_cpu.device: on_cpu}  # nodes and weights, by device

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        mean, log_std = logits.chunk(2, -1)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return base.unflat(mean + log_std.exp() * noise, self._shape)

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        return base.unflat(logits.chunk(2, -1)[0], self._shape)

    def log_prob(self, logits: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Returns log N(u) - log |da/du|, for the environment's action a."""
        mean, log_std = logits.chunk(2, -1)
        u = base.flat(action, self._shape)
        errors_ = (u - mean) * (-log_std).exp()
        normal = -0.5 * errors_.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        return normal.sum(-1) - self._log_slope(u)

    def _log_slope(self, u: torch.Tensor) -> torch.Tensor | float:
        """Sums log |da/du| over all elements: [..., n] -> [...]."""
        if not self._squash:
            return 0.0
        return _log_squared_sech(u).sum(-1) + self._log_scale

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns H(u) + E log |da/du|, the second by Gauss-Hermite quadrature."""
        mean, log_std = logits.chunk(2, -1)
        entropy = (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum(-1)
        if not self._squash:
            return entropy
        nodes, weights = self._quadrature_on(mean.device).unbind()
        points = mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * nodes
        slopes = (_log_squared_sech(points) * weights).sum((-2, -1))
        return entropy + slopes + self._log_scale

    def _quadrature_on(self, device: torch.device) -> torch.Tensor:
        """Returns nodes and weights; the first call for a GPU copies them to it."""
        if device not in self._quadrature:
            (on_cpu, *_) = self._quadrature.values()
            self._quadrature[device] = on_cpu.to(device)
        return self._quadrature[device]

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        """Returns the KL of the normals u; an invertible map leaves it unchanged."""
        p_mean, p_log_std = p_logits.chunk(2, -1)
        q_mean, q_log_std = q_logits.chunk(2, -1)
        ratio = p_log_std - q_log_std
        shift = (p_mean - q_mean) * (-q_log_std).exp()
        each = 0.5 * ((2.0 * ratio).exp() + shift.square() - 1.0) - ratio
        return each.sum(-1)

    def mix(
        self,
        logits: torch.Tensor,
        epsilon: float | torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        if not isinstance(epsilon, float) or epsilon != 0.0:
            raise ValueError("a Box has no uniform distribution to mix in")
        if temperature == 1.0:
            return logits
        mean, log_std = logits.chunk(2, -1)
        return torch.cat([mean, log_std + 0.5 * math.log(temperature)], -1)

    def normalise(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def encode(self, action: torch.Tensor) -> torch.Tensor:
        u = base.flat(action, self._shape)
        return torch.tanh(u) if self._squash else u

    def describe(self, logits: torch.Tensor) -> list[base.Element]:
        """Describes each element by mean and deviation, before any clipping."""
        mean, std = logits[: self.encoding_size], logits[self.encoding_size :].exp()
        if self._squash:
            nodes, weights = self._quadrature_on(mean.device).unsqueeze(-1).unbind()
            points = base.unflat(mean + std * nodes, self._shape)
            values = base.flat(self._to_environment(points), self._shape).double()
            weights = weights.double()
            mean = (weights * values).sum(0)
            std = (weights * (values - mean).square()).sum(0).sqrt()
        moments = zip(
            base.element_names(self._shape), mean.tolist(), std.tolist(), strict=True
        )
        labels = ("mean", "deviation")
        return [base.Element(name, labels, (m, s), False) for name, m, s in moments]


def _log_squared_sech(u: torch.Tensor) -> torch.Tensor:
    """Returns log(1 - tanh(u)^2), exact even if tanh(u) rounds to 1."""
    return 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
