"""Experiment of the subject `hosts`: an environment that takes time and no core.

A slot is as large as one of Pong with 16 environments, and comes as often: each step
has 16 stacks of four frames, and sleeps for as long as 16 steps of Pong take.
"""

import time
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

from impala_mp import config as config_lib

_UNROLL_LENGTH = 20
_STEP_SECS = 0.131 / _UNROLL_LENGTH
_FRAMES, _PLANES, _SIDE = 97, 64, 84
_SEEN = 16  # numbers that the network sees: learning takes no core, either


class Frames(gymnasium.Env[np.ndarray, Any]):
    """Pictures with a few bars that move, which compress as well as Pong's."""

    observation_space = gymnasium.spaces.Box(0, 255, (_SIDE, _SIDE, _PLANES), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        frames = np.full((_FRAMES, _SIDE, _SIDE), 87, np.uint8)
        for number, frame in enumerate(frames):
            for bar in range(3):
                row = (number * (bar + 2) + 29 * bar) % (_SIDE - 8)
                frame[row : row + 8, 8 + 34 * bar : 10 + 34 * bar] = 200 - 40 * bar
        # Planes last, so that a step copies them quickly.
        self._frames = np.moveaxis(np.concatenate([frames, frames]), 0, -1).copy()
        self._time, self._due = 0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        now = time.monotonic()
        self._due = max(self._due, now) + _STEP_SECS
        time.sleep(max(0.0, self._due - now))
        self._time += 1
        return self._observe(), 0.0, self._time % 500 == 0, False, {}

    def _observe(self) -> np.ndarray:
        first = self._time % _FRAMES
        return self._frames[..., first : first + _PLANES]


class _First(nn.Module):
    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return observation.flatten(1)[:, :_SEEN].float() / 255.0


def torso(spec: Any, settings: Any) -> nn.Module:
    return _First()


def get_config() -> Any:
    config = config_lib.get_impala_config()
    config.environment.id = "benchmarks.sleeping:Frames"
    config.network.torso = "benchmarks.sleeping:torso"
    config.unroll_length = _UNROLL_LENGTH
    config.batch_size = config.actors.environments = config.actors.count = 1
    config.evaluation.during_training = False
    return config
