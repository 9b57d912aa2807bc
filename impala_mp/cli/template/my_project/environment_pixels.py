"""Environment: a room that is seen as a picture."""

from typing import Any

import gymnasium
import numpy as np

_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
_SIZE = 6  # cells of a side, of one pixel each


class Room(gymnasium.Env[np.ndarray, np.int64]):
    """Cells in a square. The walker and the goal are anywhere in it.

    Actions: up, down, left, right. The reward is 1 at the goal, where the episode ends,
    and -0.01 in every other step. Observations uint8 [6, 6, 3]: the goal is green,
    the walker white.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}
    observation_space = gymnasium.spaces.Box(0, 255, (_SIZE, _SIZE, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(len(_MOVES))

    def __init__(self, slips: float = 0.0, render_mode: str | None = None) -> None:
        """Takes fields of the config: --config.environment.kwargs.slips=0.1."""
        self.render_mode = render_mode
        self._slips = slips  # share of the steps whose action is a random one

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)  # draw all random numbers from self.np_random
        cells = self.np_random.choice(_SIZE * _SIZE, size=2, replace=False).tolist()
        self._walker, self._goal = (divmod(cell, _SIZE) for cell in cells)
        return self.render(), {}

    def step(
        self, action: np.int64
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.np_random.random() < self._slips:
            action = self.np_random.integers(len(_MOVES))
        pairs = zip(self._walker, _MOVES[action], strict=True)
        self._walker = tuple(min(max(x + by, 0), _SIZE - 1) for x, by in pairs)
        terminated = self._walker == self._goal
        reward = 1.0 if terminated else -0.01
        return self.render(), reward, terminated, False, {}

    def render(self) -> np.ndarray:
        """Returns what the agent sees, uint8 [6, 6, 3]."""
        picture = np.full((_SIZE, _SIZE, 3), 40, np.uint8)
        picture[self._goal] = (0, 160, 0)
        picture[self._walker] = 255
        return picture


# Episodes are truncated after 50 steps. Truncation is no end: the learner still counts
# the value of the next state.
gymnasium.register("MyProject-v0", "my_project.environment:Room", max_episode_steps=50)
