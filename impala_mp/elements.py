"""Arrays of actions as vectors of their elements, and back; and words for each."""

import math
from typing import NamedTuple

import numpy as np
import torch


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


def names(shape: tuple[int, ...]) -> list[str]:
    """Of each element of an array; "" if it is but one number."""
    return [str(list(index)) for index in np.ndindex(shape)] if shape else [""]


def flat(array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., *shape] -> [..., n]."""
    leading = array.shape[: array.dim() - len(shape)]
    return array.reshape(*leading, math.prod(shape))


def unflat(vector: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., n] -> [..., *shape]."""
    return vector.reshape(*vector.shape[:-1], *shape)
