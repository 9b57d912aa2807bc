"""Number formats that a network computes in: float32 and bfloat16.

bfloat16 has eight bits of precision. So the heads compute in float32 at any precision,
as does the encoder of a privileged array. What they return is float32, and so is the
core state.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch

FLOAT32, BFLOAT16 = "float32", "bfloat16"
AUTO = "auto"  # the faster one, measured before a run


def context(name: str, device: str, cache_enabled: bool = True) -> Any:
    """Returns a context in which networks compute at a precision, on a kind of device.

    Args:
      cache_enabled: keep weights in bfloat16 within the context; a CUDA graph cannot.
    """
    if name == FLOAT32:
        return contextlib.nullcontext()
    if name != BFLOAT16:
        raise ValueError(f"{name} is no precision to compute in.")
    return torch.autocast(device, torch.bfloat16, cache_enabled=cache_enabled)


def is_native() -> bool:
    """Returns True if the CPU has instructions for bfloat16, or good substitutes.

    Elsewhere a convolution in bfloat16 can take a hundred times as long.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_reduced(device: str) -> bool:
    """Returns True in a context of bfloat16."""
    return torch.is_autocast_enabled(device)


def in_float32(function: Callable[..., Any], *tensors: torch.Tensor) -> Any:
    """Calls `function` with the tensors in float32, where a context is in place."""
    device = tensors[0].device.type if tensors else ""
    if not device or not is_reduced(device):
        return function(*tensors)
    with torch.autocast(device, enabled=False):
        return function(*(each.float() for each in tensors))
