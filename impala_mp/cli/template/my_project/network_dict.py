"""Torso of the network: observations to features. Core and heads follow."""

from typing import Any

import torch
from torch import nn


class Torso(nn.Module):
    """Fully connected layers over the parts of the observation, side by side."""

    def __init__(self, size: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for hidden in hidden_sizes:
            layers += [nn.Linear(size, hidden), nn.Tanh()]
            size = hidden
        self.layers = nn.Sequential(*layers)

    def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        """{part: [N, ...]}, in the environment's dtypes -> [N, F]."""
        parts = observation["places"], observation["has_key"].float()[:, None]
        features: torch.Tensor = self.layers(torch.cat(parts, dim=1))
        return features


def torso(observation_spec: Any, config: Any) -> nn.Module:
    """Makes the torso for config.network.torso; `config` is config.network."""
    del observation_spec
    return Torso(5, config.hidden_sizes)
