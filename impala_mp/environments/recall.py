"""Recall: a cue, a delay, then the matching action. Only memory solves it."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from impala_mp import errors


class RecallVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """One of `num_cues` cues, `delay` blank observations, then a question.

    A flag asks for the cue. The matching action earns 1, any other 0, and the episode
    ends. Earlier actions have no effect. Without memory the mean return is
    1 / num_cues. Observations float32 [num_cues + 1], the flag last.
    """

    metadata = {
        "autoreset_mode": AutoresetMode.NEXT_STEP,
        "render_modes": ["rgb_array"],
    }

    def __init__(
        self,
        num_envs: int,
        num_cues: int = 4,
        delay: int = 10,
        render_mode: str | None = None,
    ) -> None:
        whole = isinstance(num_cues, int) and isinstance(delay, int)
        if not whole or num_cues < 2 or delay < 0:
            raise errors.BadInput(
                f"Recall cannot use num_cues={num_cues!r} and delay={delay!r}. It needs"
                " whole numbers, num_cues >= 2 and delay >= 0. Set"
                " config.environment.kwargs."
            )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._num_cues, self._delay = num_cues, delay
        self.single_observation_space = gymnasium.spaces.Box(
            0.0, 1.0, (num_cues + 1,), np.float32
        )
        self.single_action_space = gymnasium.spaces.Discrete(num_cues)
        self._rng = np.random.default_rng()
        self._cue = np.zeros(num_envs, np.int64)
        self._time = np.zeros(num_envs, np.int64)  # 0: cue; delay + 1: question

    def reset(
        self, *, seed: Any = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._cue = self._rng.integers(self._num_cues, size=self.num_envs)
        self._time = np.zeros(self.num_envs, np.int64)
        return self._observation(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        answered = self._time == self._delay + 1
        restart = self._time == self._delay + 2
        reward = np.where(answered & (actions == self._cue), 1.0, 0.0)
        self._time = np.where(restart, 0, self._time + 1)
        count = int(restart.sum())
        self._cue[restart] = self._rng.integers(self._num_cues, size=count)
        return self._observation(), reward, answered, np.zeros_like(answered), {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros((self.num_envs, self._num_cues + 1), np.float32)
        shown = np.flatnonzero(self._time == 0)
        observation[shown, self._cue[shown]] = 1.0
        observation[self._time == self._delay + 1, -1] = 1.0
        return observation

    def render(self) -> tuple[np.ndarray, ...] | None:
        if self.render_mode is None:
            return None
        row = (self._observation()[:1] * 255).astype(np.uint8)
        large = row.repeat(32, axis=0).repeat(32, axis=1)
        return (np.stack([large] * 3, axis=-1),)
