"""Action distributions: the only code that interprets policy logits."""

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch

from impala_mp import types


class Element(NamedTuple):
    """Description of one element of an action: probabilities or moments."""

    name: str  # within the action: "", "[1, 0]" or "arm/0[2]"
    labels: tuple[str, ...]  # one per number
    numbers: tuple[float, ...]
    are_probabilities: bool

    @property
    def text(self) -> str:
        """`arm/0[2]: mean 0.31, deviation 1.04`."""
        pairs = zip(self.labels, self.numbers, strict=True)
        said = ", ".join(f"{label} {number:.2f}" for label, number in pairs)
        return f"{self.name}: {said}" if self.name else said


def element_names(shape: tuple[int, ...]) -> list[str]:
    """Returns the name of each element of an array; "" for a single number."""
    return [str(list(index)) for index in np.ndindex(shape)] if shape else [""]


def flat(array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Flattens [..., *shape] to [..., n]."""
    leading = array.shape[: array.dim() - len(shape)]
    return array.reshape(*leading, math.prod(shape))


def unflat(vector: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Reshapes [..., n] to [..., *shape]."""
    return vector.reshape(*vector.shape[:-1], *shape)


class ActionDistribution(Protocol):
    """Functions of policy logits [..., L] and actions, a nest of [..., *shape]."""

    num_logits: int  # L
    encoding_size: int  # features of `encode`
    free: tuple[bool, ...]  # L: which logits do not depend on the observation

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> types.Nest:
        """Draws an action."""

    def mode(self, logits: torch.Tensor) -> types.Nest:
        """Returns the greedy action: the most probable one, or the median of a Box."""

    def log_prob(self, logits: torch.Tensor, action: types.Nest) -> torch.Tensor:
        """Returns log pi(a) of the joint action: [...]."""

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the entropy in nats: [...]."""

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        """Returns KL(p || q) in nats: [...]."""

    def mix(
        self,
        logits: torch.Tensor,
        epsilon: float | torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Returns logits of (1 - epsilon) pi^(1 / temperature) + epsilon uniform.

        The power is normalised. Each part of a joint action is mixed separately.
        `epsilon` is one number, or float64 [...] with one per row. Finite logits stay
        finite. With epsilon 0 and temperature 1 the result is the same tensor.
        """

    def normalise(self, logits: torch.Tensor) -> torch.Tensor:
        """Maps all logits of one distribution to the same logits."""

    def encode(self, action: types.Nest) -> torch.Tensor:
        """Encodes an action as float features [..., encoding_size] for a network."""

    def describe(self, logits: torch.Tensor) -> list[Element]:
        """Describes one row [L] by probabilities or moments of the action."""
