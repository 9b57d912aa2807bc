"""Atari through ale-py's C++ vector environment: planes last, whole games counted."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from impala_mp import specs
from impala_mp.environments import vector


class AtariEnvironment(vector.VectorEnvironment):
    """Images uint8 [84, 84, 4], or [84, 84, 12] in colour, newest plane last.

    With `episodic_life`, a lost life is LAST with discount 0 for the learner, but the
    game continues. The row after it is FIRST, and its transition is not learned from.
    (ale-py's option of that name starts a new game instead, so that no agent sees a
    second life.) The episode return always covers the whole game.
    """

    def __init__(
        self,
        envs: gymnasium.vector.VectorEnv[Any, Any, Any],
        episodic_life: bool,
        frames_per_step: int,
    ) -> None:
        self.frames_per_step = frames_per_step
        super().__init__(envs)
        planes, height, width, *colours = self.spec.observation.shape
        size = colours[0] if colours else 1
        image = specs.array_spec(
            (height, width, planes * size), np.uint8, (0.0,), (255.0,), planes
        )
        self._places = [
            slice(plane * size, (plane + 1) * size) if colours else plane
            for plane in range(planes)
        ]
        action = self.spec.action
        self.specs = (specs.EnvironmentSpec(image, action, frames_per_step),)
        self._episodic_life = episodic_life
        self._lives = np.zeros(self.num_envs, np.int64)
        self._newest = np.zeros((0,), np.uint8)
        self._images = np.zeros((self.num_envs, *image.shape), np.uint8)

    def seed_argument(self, seeds: Sequence[int]) -> np.ndarray:
        return np.array(seeds)

    def _observation(self, observation: np.ndarray) -> np.ndarray:
        self._newest = observation[0, -1]
        # Plane by plane: copying the transposed view takes six times as long.
        for plane, place in enumerate(self._places):
            self._images[..., place] = observation[:, plane]
        return self._images

    def _note(self, info: dict[str, Any]) -> None:
        self._lives = info["lives"]

    def _terminated(self, terminated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        if not self._episodic_life:
            return terminated
        # After the end of a game the count jumps up again: no life is lost.
        lost = info["lives"] < self._lives
        self._lives = info["lives"]
        return terminated | lost

    @property
    def draws(self) -> bool:
        return True

    def frame(self) -> np.ndarray:
        """Returns the newest plane of copy 0, enlarged three times."""
        large = self._newest.repeat(3, axis=0).repeat(3, axis=1)
        return large if large.ndim == 3 else np.stack([large] * 3, axis=-1)
