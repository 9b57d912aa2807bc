"""Environments that count their steps."""

import random

import gymnasium
import numpy as np
import torch


class Counter(gymnasium.Env):
    """Counts its steps; terminates or truncates at a length drawn at each reset."""

    observation_space = gymnasium.spaces.Box(-1000.0, 1000.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._length, self._time = int(self.np_random.integers(1, 6)), 0
        return self._observation(), {}

    def step(self, action):
        assert action in self.action_space
        self._time += 1
        over = self._time == self._length
        odd = bool(self._length % 2)
        return self._observation(), float(action), over and odd, over and not odd, {}

    def _observation(self):
        return np.array([self._time, self._length], np.float32)


gymnasium.register("Counter-v0", Counter)


class Wordy(Counter):
    """Says something, too."""

    observation_space = gymnasium.spaces.Dict(
        {"numbers": Counter.observation_space, "words": gymnasium.spaces.Text(5)}
    )

    def _observation(self):
        return {"numbers": super()._observation(), "words": "hello"}


gymnasium.register("Wordy-v0", Wordy)


class Gambler(Counter):
    """Draws from the global generators, and never from its own."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)

    def _observation(self):
        self._length = 5
        return np.array([random.random(), np.random.random(), torch.rand(())], "f4")


gymnasium.register("Gambler-v0", Gambler)
