"""Arrays of actions as vectors of their elements, and back."""

import math

import torch


def flat(array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., *shape] -> [..., n]."""
    leading = array.shape[: array.dim() - len(shape)]
    return array.reshape(*leading, math.prod(shape))


def unflat(vector: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., n] -> [..., *shape]."""
    return vector.reshape(*vector.shape[:-1], *shape)
