"""Rock, paper, scissors as arrays: a game of one move, which both players choose."""

import gymnasium
import numpy as np
import torch

from impala_mp import types
from impala_mp.environments import vector_games


class RockPaperScissors:
    """Action a beats action a - 1. Nothing is to be seen."""

    players = ("player_0", "player_1")
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, num_envs=1):
        self.num_games = num_envs

    def reset(self, seed):
        self._over = np.zeros(self.num_games, bool)
        return self._rows(np.zeros(self.num_games))

    def step(self, actions):
        difference = (actions[:, 0] - actions[:, 1]) % 3
        reward = np.array([0.0, 1.0, -1.0])[difference]
        reward[self._over] = 0.0
        self._over = ~self._over
        return self._rows(reward)

    def _rows(self, reward):
        shape = self.num_games, 2
        over = np.repeat(self._over[:, None], 2, 1)
        return vector_games.Rows(
            observation=np.ones((*shape, 1), np.float32),
            reward=np.stack([reward, 0.0 - reward], 1),
            terminated=over,
            truncated=np.zeros(shape, bool),
            acts=~over,
            present=np.ones(shape, bool),
        )


def chances(snapshot, policy):
    """Probabilities of the three actions in a snapshot, with an agent for them."""
    policy.network.load_state_dict(snapshot["learner"]["parameters"])
    row = types.TimeStep(
        step_type=torch.zeros(1, dtype=torch.uint8),
        reward=torch.zeros(1),
        discount=torch.ones(1),
        observation=torch.ones(1, 1),
        acts=torch.ones(1, dtype=torch.bool),
    )
    with torch.inference_mode():
        logits, *_ = policy.look(row, policy.initial_state(1))
    return torch.softmax(logits[0], -1).numpy()
