"""Environment: a corridor with a goal at one end."""

from typing import Any

import gymnasium
import numpy as np


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """Cells in a row. The walker starts in the middle; the goal is at either end.

    Actions: left, stay, right. The reward is 1 at the goal, where the episode ends, and
    -0.01 in every other step. Observations float32 [2]: the positions of walker and
    goal, from -1 at the left end to 1 at the right end.
    """

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, length: int = 9, render_mode: str | None = None) -> None:
        """Takes fields of the config: --config.environment.kwargs.length=15."""
        self.render_mode = render_mode
        self._length = length

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)  # draw all random numbers from self.np_random
        self._position = self._length // 2
        self._goal = int(self.np_random.integers(2)) * (self._length - 1)
        return self._observation(), {}

    def step(
        self, action: np.int64
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        moved = self._position + int(action) - 1
        self._position = min(max(moved, 0), self._length - 1)
        terminated = self._position == self._goal
        reward = 1.0 if terminated else -0.01
        return self._observation(), reward, terminated, False, {}

    def _observation(self) -> np.ndarray:
        cells = np.array([self._position, self._goal], np.float32)
        return 2.0 * cells / np.float32(self._length - 1) - 1.0

    def render(self) -> np.ndarray:
        """uint8 [H, W, 3]: the goal is green, the walker white."""
        picture = np.full((1, self._length, 3), 40, np.uint8)
        picture[0, self._goal] = (0, 160, 0)
        picture[0, self._position] = 255
        return picture.repeat(24, axis=0).repeat(24, axis=1)


# Episodes are truncated after 50 steps. Truncation is no end: the learner still counts
# the value of the next state.
gymnasium.register(
    "MyProject-v0", "my_project.environment:Corridor", max_episode_steps=50
)
