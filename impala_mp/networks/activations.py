"""Functions whose kernels in torch are slow on a CPU, by faster ones.

`python tools/benchmark.py kernels` compares them.
"""

from typing import Any

import torch
from torch import nn

# Elements from which the calls that `_through_sigmoid` adds take less time than it
# saves.
_LARGE = 8192
# Elements of a last axis below which torch's log_softmax handles one at a time.
_VECTOR = 16
_MANY = 512  # elements from which moving the axis pays


def tanh(x: torch.Tensor) -> torch.Tensor:
    """Returns tanh(x), any shape; within 2e-7 for large float32 tensors on a CPU."""
    is_slow = x.device.type == "cpu" and x.dtype == torch.float32
    if torch.compiler.is_compiling() or not is_slow or x.numel() < _LARGE:
        return torch.tanh(x)
    if x.requires_grad and torch.is_grad_enabled():
        found: torch.Tensor = _Tanh.apply(x)  # type: ignore[no-untyped-call]
        return found
    return _through_sigmoid(x)


def log_softmax(x: torch.Tensor) -> torch.Tensor:
    """Returns log_softmax over the last axis: [..., L] -> [..., L].

    With few elements on a CPU, it is computed over a first axis. The result is a view
    in that layout. Sums over its last axis are faster, too.
    """
    few = x.device.type == "cpu" and x.shape[-1] < _VECTOR
    if torch.compiler.is_compiling() or not few or x.numel() < _MANY:
        return torch.log_softmax(x, -1)
    return torch.log_softmax(x.movedim(-1, 0).contiguous(), 0).movedim(0, -1)


class Tanh(nn.Module):
    """`tanh` as a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return tanh(x)


def _through_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Returns tanh(x) = 2 sigmoid(2x) - 1: torch computes sigmoid ten times as fast."""
    return (2.0 * x).sigmoid_().mul_(2.0).sub_(1.0)


class _Tanh(torch.autograd.Function):
    """tanh with one kernel in its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = _through_sigmoid(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (gradient,), (y,) = gradients, ctx.saved_tensors
        found: torch.Tensor = torch.ops.aten.tanh_backward(gradient, y)
        return found
