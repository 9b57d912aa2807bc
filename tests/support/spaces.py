"""An environment of any spaces, and some of every kind."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Spaces(gymnasium.Env):
    """Random observations of any space; an episode is 4 to 8 steps long.

    The reward is 1 where the action lies in its space, which it has to.
    """

    def __init__(self, observation, action):
        self.observation_space = _SPACES[observation]
        self.action_space = _SPACES[action]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._left = int(self.np_random.integers(4, 9))
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} in {self.action_space}"
        self._left -= 1
        odd = self._left % 2 == 0
        over = self._left <= 0
        return self.observation_space.sample(), 1.0, over and odd, over and not odd, {}


_SPACES = {
    "box": spaces.Box(-1.0, 2.0, (3,), np.float32),
    "box64": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    "half": spaces.Box(np.array([0.0, -np.inf]), np.array([np.inf, 1.0]), dtype="f4"),
    "scalar": spaces.Box(-1.0, 1.0, (), np.float32),
    "int16": spaces.Box(-5, 5, (3,), np.int16),
    "uint16": spaces.Box(0, 9, (3,), np.uint16),
    "bool": spaces.Box(0, 1, (4, 4, 2), bool),
    "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
    "discrete": spaces.Discrete(5, start=-2),
    "binary": spaces.MultiBinary(4),
    "binary2": spaces.MultiBinary([2, 3]),
    "multi": spaces.MultiDiscrete([2, 3, 4], start=[1, 0, -1]),
    "multi2": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "tuple": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))]),
    "dict": spaces.Dict(
        {
            "mode": spaces.Discrete(3, start=1),
            "arm": spaces.Tuple([spaces.MultiBinary(2), spaces.Box(-2.0, 1.0, (2,))]),
            "gears": spaces.MultiDiscrete([2, 3]),
        }
    ),
    "masked": spaces.Dict(
        {"what": spaces.Box(-1.0, 1.0, (3,)), "allowed": spaces.MultiBinary(5)}
    ),
}

OBSERVATIONS = tuple(_SPACES)
ACTIONS = (
    *("box", "box64", "half", "scalar", "discrete", "binary", "binary2"),
    *("multi", "multi2", "tuple", "dict"),
)

gymnasium.register("Spaces-v0", Spaces)
