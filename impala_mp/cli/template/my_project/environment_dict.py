"""Environment: a room in which a key opens the door."""

from typing import Any

import gymnasium
import numpy as np

_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Errand(gymnasium.Env[dict[str, Any], np.int64]):
    """Cells in a square. The walker fetches the key and brings it to the door.

    Actions: up, down, left, right. The reward is 0.5 at the key and 0.5 at the door
    with the key, where the episode ends, and -0.01 in every other step. Observations, a
    Dict: `places`, float32 [4], row and column of walker and key from -1 to 1 (a key
    that is taken goes with the walker), and `has_key`, 0 or 1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}
    observation_space = gymnasium.spaces.Dict(
        {
            "places": gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32),
            "has_key": gymnasium.spaces.Discrete(2),
        }
    )
    action_space = gymnasium.spaces.Discrete(len(_MOVES))

    def __init__(self, size: int = 5, render_mode: str | None = None) -> None:
        """Takes fields of the config: --config.environment.kwargs.size=7."""
        self.render_mode = render_mode
        self._size = size
        self._door = (0, size // 2)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)  # draw all random numbers from self.np_random
        cells = self.np_random.integers(self._size, size=(2, 2)).tolist()
        self._walker, self._key = (tuple(cell) for cell in cells)
        self._has_key = False
        return self._observation(), {}

    def step(
        self, action: np.int64
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        pairs = zip(self._walker, _MOVES[action], strict=True)
        self._walker = tuple(min(max(x + by, 0), self._size - 1) for x, by in pairs)
        reward, terminated = -0.01, False
        if self._has_key:
            self._key = self._walker
            terminated = self._walker == self._door
            reward = 0.5 if terminated else reward
        elif self._walker == self._key:
            self._has_key, reward = True, 0.5
        return self._observation(), reward, terminated, False, {}

    def _observation(self) -> dict[str, Any]:
        places = np.array(self._walker + self._key, np.float32)
        places = 2.0 * places / np.float32(self._size - 1) - 1.0
        return {"places": places, "has_key": int(self._has_key)}

    def render(self) -> np.ndarray:
        """uint8 [H, W, 3]: the door is green, the key yellow, the walker white."""
        picture = np.full((self._size, self._size, 3), 40, np.uint8)
        picture[self._door] = (0, 160, 0)
        picture[self._walker] = 255
        picture[self._key] = (240, 200, 0)
        return picture.repeat(24, axis=0).repeat(24, axis=1)


# Episodes are truncated after 50 steps. Truncation is no end: the learner still counts
# the value of the next state.
gymnasium.register(
    "MyProject-v0", "my_project.environment:Errand", max_episode_steps=50
)
