"""Torso of the network: observations to features. Core and heads follow."""

from typing import Any

import torch
from torch import nn


class Torso(nn.Module):
    """Two convolutions over pictures of `side` x `side` pixels, and one layer."""

    def __init__(self, side: int, channels: int, num_features: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()
        )
        left = side - 4
        self.output = nn.Linear(16 * left * left, num_features)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Pixels uint8 [N, H, W, C], as the environment gives them -> [N, F]."""
        pictures = observation.permute(0, 3, 1, 2).float() / 255.0
        return self.output(self.convolutions(pictures).flatten(1)).relu()


def torso(observation_spec: Any, config: Any) -> nn.Module:
    """Makes the torso for config.network.torso; `config` is config.network."""
    side, _, channels = observation_spec.shape
    return Torso(side, channels, config.hidden_sizes[-1])
