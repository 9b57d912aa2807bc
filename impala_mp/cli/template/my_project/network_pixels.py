"""Torso of the network: observations to features. Core and heads follow."""

from typing import Any

import torch
from torch import nn


class Torso(nn.Module):
    """A convolution over pictures of `side` x `side` pixels, and one layer.

    A second convolution would see most of such a small picture, and learns slower.
    """

    def __init__(self, side: int, channels: int, num_features: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 16, 3)
        self.output = nn.Linear(16 * (side - 2) ** 2, num_features)
        for layer in (self.convolution, self.output):
            nn.init.orthogonal_(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Pixels uint8 [N, H, W, C], as the environment gives them -> [N, F]."""
        pictures = observation.permute(0, 3, 1, 2).float() / 255.0
        features = self.convolution(pictures).relu()
        return self.output(features.flatten(1)).relu()


def torso(observation_spec: Any, config: Any) -> nn.Module:
    """Makes the torso for config.network.torso; `config` is config.network."""
    side, _, channels = observation_spec.shape
    return Torso(side, channels, num_features=128)
