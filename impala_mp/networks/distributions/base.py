"""Action distributions: the only code that knows what policy logits mean."""

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch

from impala_mp import types


class Element(NamedTuple):
    """What a distribution says of one element of an action."""

    name: str  # within the action: "", "[1, 0]" or "arm/0[2]"
    labels: tuple[str, ...]  # of the numbers
    numbers: tuple[float, ...]
    are_probabilities: bool

    @property
    def text(self) -> str:
        """`arm/0[2]: mean 0.31, deviation 1.04`."""
        pairs = zip(self.labels, self.numbers, strict=True)
        said = ", ".join(f"{label} {number:.2f}" for label, number in pairs)
        return f"{self.name}: {said}" if self.name else said


def element_names(shape: tuple[int, ...]) -> list[str]:
    """Of each element of an array; "" if it is but one number."""
    return [str(list(index)) for index in np.ndindex(shape)] if shape else [""]


def flat(array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., *shape] -> [..., n]."""
    leading = array.shape[: array.dim() - len(shape)]
    return array.reshape(*leading, math.prod(shape))


def unflat(vector: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., n] -> [..., *shape]."""
    return vector.reshape(*vector.shape[:-1], *shape)


class ActionDistribution(Protocol):
    """Functions of policy logits [..., L] and actions, a nest of [..., *shape]."""

    num_logits: int  # L
    encoding_size: int  # features of `encode`
    free: tuple[bool, ...]  # L: which logits do not depend on the observation

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> types.Nest:
        """An action."""

    def mode(self, logits: torch.Tensor) -> types.Nest:
        """The action of a greedy policy: the likeliest, of a Box the median."""

    def log_prob(self, logits: torch.Tensor, action: types.Nest) -> torch.Tensor:
        """log pi(a), of the joint action: [...]."""

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        """In nats: [...]."""

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        """KL(p || q) in nats: [...]."""

    def mix(
        self,
        logits: torch.Tensor,
        epsilon: float | torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Logits of (1 - epsilon) pi^(1 / temperature) + epsilon uniform.

        The power is normalised; of a joint action each part is mixed by itself.
        `epsilon` is one number, or float64 [...], one a row. Finite for finite logits;
        with epsilon 0 and temperature 1 the same tensor.
        """

    def normalise(self, logits: torch.Tensor) -> torch.Tensor:
        """The same for all logits that mean the same distribution."""

    def encode(self, action: types.Nest) -> torch.Tensor:
        """Float features [..., encoding_size] of an action, for use as an input."""

    def describe(self, logits: torch.Tensor) -> list[Element]:
        """Of one row [L]: probabilities, or moments, of the environment's action."""
