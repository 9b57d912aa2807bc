"""Initialisers of fresh layers."""

from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def orthogonal(module: _Module, gain: float = 2.0**0.5) -> _Module:
    """Sets orthogonal weights and zero biases (Saxe et al. 2014), layer by layer."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
