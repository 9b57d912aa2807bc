"""An environment with a Dict of observations, as a newcomer writes one."""

import gymnasium
import numpy as np


class Treasure(gymnasium.Env):
    """Nine places in a row; the treasure is at one of them, and the view shows both."""

    observation_space = gymnasium.spaces.Dict(
        {
            "place": gymnasium.spaces.Discrete(9),
            "treasure": gymnasium.spaces.Discrete(9),
        }
    )
    action_space = gymnasium.spaces.Discrete(2)  # left, right

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.treasure = 4, int(self.np_random.choice([0, 1, 2, 6, 7, 8]))
        self.left = 12
        return self._view(), {}

    def step(self, action):
        self.place = int(np.clip(self.place + (1 if action else -1), 0, 8))
        self.left -= 1
        found = self.place == self.treasure
        reward = 1.0 if found else -0.05
        return self._view(), reward, found, self.left == 0, {}

    def _view(self):
        return {"place": self.place, "treasure": self.treasure}


class Locked(Treasure):
    """It has a bug: the sixth step of an episode fails."""

    def step(self, action):
        if self.left == 7:
            raise ValueError("the door is locked")
        return super().step(action)
