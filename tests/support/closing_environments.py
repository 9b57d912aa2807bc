"""Environments that record what is made and closed, and that close badly."""

import sys
import time

import gymnasium
import numpy as np

MADE, CLOSED = [], []


class Recorded(gymnasium.Env):
    """Episodes of 5 steps. `fault`, if any, is that of copy number `at`."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None, fault="", at=0):
        self.render_mode = render_mode
        self._fault = fault if len(MADE) == at else ""
        if self._fault == "no licence":
            raise ValueError("no licence for one more")
        MADE.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        if self._fault == "no reset":
            raise ValueError("no level to start")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._time += 1
        return np.zeros(2, np.float32), 1.0, self._time == 5, False, {}

    def render(self):
        return np.zeros((4, 4, 3), np.uint8)

    def close(self):
        CLOSED.append(self)
        if self._fault == "raises":
            raise ValueError("no such window")
        if self._fault == "exits":
            sys.exit(3)
        if self._fault == "hangs":
            time.sleep(600)
        if self._fault == "hangs twice":
            try:
                time.sleep(600)
            except BaseException:
                time.sleep(600)


gymnasium.register("Recorded-v0", Recorded)


def clear():
    MADE.clear()
    CLOSED.clear()


def assert_each_closed_once(count=None):
    assert MADE
    assert sorted(map(id, MADE)) == sorted(map(id, CLOSED))
    assert count in (None, len(MADE))
