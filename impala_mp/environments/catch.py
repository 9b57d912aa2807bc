"""Catch: a paddle must be under a falling ball (Mnih et al. 2014; bsuite)."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from impala_mp import errors


class CatchVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Board of `rows` x `columns`; the ball starts on top and falls one row per step.

    Actions: left, stay, right. Reward at the end: 1 if caught, else -1. Observations
    float32 [rows, columns], 1 at the ball and at the paddle.
    """

    metadata = {
        "autoreset_mode": AutoresetMode.NEXT_STEP,
        "render_modes": ["rgb_array"],
    }

    def __init__(
        self,
        num_envs: int,
        rows: int = 10,
        columns: int = 5,
        render_mode: str | None = None,
    ) -> None:
        whole = isinstance(rows, int) and isinstance(columns, int)
        if not whole or rows < 2 or columns < 1:
            raise errors.BadInput(
                f"Catch cannot use rows={rows!r} and columns={columns!r}. It needs"
                " whole numbers, rows >= 2 and columns >= 1. Set"
                " config.environment.kwargs."
            )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._rows, self._columns = rows, columns
        board = gymnasium.spaces.Box(0.0, 1.0, (rows, columns), np.float32)
        self.single_observation_space = board
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self._rng = np.random.default_rng()
        self._start(np.ones(num_envs, bool))

    def _start(self, where: np.ndarray) -> None:
        """Starts a new ball in the copies `where`, bool [E]."""
        if where.all():
            self._ball_row = np.zeros(self.num_envs, np.int64)
            self._ball = np.zeros(self.num_envs, np.int64)
            self._paddle = np.zeros(self.num_envs, np.int64)
        count = int(where.sum())
        self._ball_row[where] = 0
        self._ball[where] = self._rng.integers(self._columns, size=count)
        self._paddle[where] = self._columns // 2

    def reset(
        self, *, seed: Any = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._start(np.ones(self.num_envs, bool))
        return self._board(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        restart = self._ball_row == self._rows - 1
        moved = np.clip(self._paddle + actions - 1, 0, self._columns - 1)
        self._paddle = moved
        self._ball_row = self._ball_row + 1
        if restart.any():
            self._start(restart)
        terminated = self._ball_row == self._rows - 1
        caught = np.where(self._ball == self._paddle, 1.0, -1.0)
        reward = np.where(terminated, caught, 0.0)
        return self._board(), reward, terminated, np.zeros_like(terminated), {}

    def _board(self) -> np.ndarray:
        board = np.zeros((self.num_envs, self._rows, self._columns), np.float32)
        index = np.arange(self.num_envs)
        board[index, self._ball_row, self._ball] = 1.0
        board[index, -1, self._paddle] = 1.0
        return board

    def render(self) -> tuple[np.ndarray, ...] | None:
        if self.render_mode is None:
            return None
        picture = (self._board()[0] * 255).astype(np.uint8)
        large = picture.repeat(24, axis=0).repeat(24, axis=1)
        return (np.stack([large] * 3, axis=-1),)
