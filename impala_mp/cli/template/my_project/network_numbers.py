"""Torso of the network: observations to features. Core and heads follow."""

from typing import Any

import torch
from torch import nn


class Torso(nn.Module):
    """Fully connected layers over observations of `size` numbers."""

    def __init__(self, size: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for hidden in hidden_sizes:
            layers += [nn.Linear(size, hidden), nn.ReLU()]
            size = hidden
        self.layers = nn.Sequential(*layers)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """[N, size], in the environment's dtype -> [N, F]."""
        features: torch.Tensor = self.layers(observation.float())
        return features


def torso(observation_spec: Any, config: Any) -> nn.Module:
    """Makes the torso for config.network.torso; `config` is config.network."""
    (size,) = observation_spec.shape
    return Torso(size, config.hidden_sizes)
