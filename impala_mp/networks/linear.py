"""Linear layers that use the vectors of CPUs which MKL does not use fully.

MKL, with which torch multiplies float32 matrices, uses half of the width of AVX-512 on
processors that are not Intel's. oneDNN, which torch has too, uses all of it.
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# Least sizes for which oneDNN is faster. It orders operands before each product: one to
# infer, and three to learn.
_LEARNED_ROWS, _ROWS, _OUTPUTS, _LARGE = 256, 8, 16, 2_000_000


class Linear(nn.Linear):
    """`linear` as a layer."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return linear(inputs, self.weight, self.bias)


def linear(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns inputs @ weight.T + bias: [..., I], [O, I] -> [..., O]."""
    learns = torch.is_grad_enabled() and (inputs.requires_grad or weight.requires_grad)
    if torch.compiler.is_compiling() or not _pays(inputs, weight, learns):
        return functional.linear(inputs, weight, bias)
    flat = inputs.reshape(-1, inputs.shape[-1])
    if learns:
        found = _Linear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
    else:
        found = _product(flat, weight, bias)
    result: torch.Tensor = found.unflatten(0, inputs.shape[:-1])
    return result


def _pays(inputs: torch.Tensor, weight: torch.Tensor, learns: bool) -> bool:
    num_outputs, num_inputs = weight.shape
    rows = inputs.shape[:-1].numel()
    return (
        rows >= (_LEARNED_ROWS if learns else _ROWS)
        and num_outputs >= _OUTPUTS
        and rows * num_inputs * num_outputs >= _LARGE
        and inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and mkl_is_slow()
    )


@functools.cache
def mkl_is_slow() -> bool:
    """Returns whether this CPU has AVX-512, and is not Intel's."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    with open("/proc/cpuinfo") as file:
        return "GenuineIntel" not in file.read()


def _product(
    rows: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns rows @ columns.T + bias by oneDNN: [N, K], [M, K] -> [N, M]."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        rows, columns, bias, "none", [], ""
    )
    return found


class _Linear(torch.autograd.Function):
    """`_product` and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()  # that of a sum has strides of 0
        of_inputs = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_inputs = _product(gradient, weight.t())
        if ctx.needs_input_grad[1]:
            of_weight = _product(inputs.t(), gradient.t()).t()
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_inputs, of_weight, of_bias
