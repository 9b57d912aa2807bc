"""Games of two teams with deaths, random lengths and random rewards, as arrays."""

import gymnasium
import numpy as np

from impala_mp.environments import vector_games


class Skirmish:
    """All four players act at once; some die early, and every game ends.

    The observation is the row of the game, the same for all.
    """

    players = ("red_0", "red_1", "blue_0", "blue_1")
    observation_space = gymnasium.spaces.Box(0.0, 100.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(1000)

    def __init__(self, num_envs=1):
        self.num_games = num_envs

    def reset(self, seed):
        self._rng = np.random.default_rng(seed)
        self._start(np.ones(self.num_games, bool), first=True)
        return self._rows(np.zeros((self.num_games, 4)), self._ends())

    def _start(self, games, first=False):
        shape = self.num_games, 4
        if first:
            self._t = np.zeros(self.num_games, np.int64)
            self._length = np.ones(self.num_games, np.int64)
            self._present, self._dies = np.zeros(shape, bool), np.zeros(shape, bool)
        self._t[games] = 0
        self._length[games] = self._rng.integers(1, 9, games.sum())
        self._present[games] = True
        self._dies[games] = False

    def _ends(self):
        return np.zeros((self.num_games, 4), bool)

    def step(self, actions):
        over = self._t >= self._length
        self._present &= ~self._dies  # who died is gone
        self._start(over)
        self._t[~over] += 1
        reward = self._rng.integers(-1, 2, (self.num_games, 4)) * 1.0
        reward[over] = 0.0
        last = (self._t >= self._length)[:, None] & self._present
        self._dies = self._present & (self._rng.random((self.num_games, 4)) < 0.05)
        self._dies[over] = False
        dead = self._present & self._dies
        # Without a living player the game is over, too.
        lives = (self._present & ~self._dies).any(1)
        self._t[~lives] = self._length[~lives]
        return self._rows(np.where(self._present, reward, 0.0), last | dead)

    def _rows(self, reward, ends):
        seen = np.repeat(self._t[:, None, None], 4, 1).astype(np.float32)
        return vector_games.Rows(
            observation=seen,
            reward=reward,
            terminated=ends,
            truncated=np.zeros_like(ends),
            acts=self._present & ~ends,
            present=self._present.copy(),
        )
