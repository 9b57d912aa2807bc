"""Battle (magent2): six against six on a map of 16x16 cells, one policy for all.

Players see 13x13 cells around them, may move or attack, and are out when dead. The
policy plays against itself and its snapshots. Compare with others side by side; a side
wins with the higher return, which it may have without a kill:

    impala-eval DIR --against=random

The games are stepped as arrays, five times as fast as by magent2's parallel_env. Run it
from the repository's root, where its class is found by name.
"""

import numpy as np

from impala_mp import config as config_lib, errors
from impala_mp.environments import vector_games

_HERE = config_lib.module_of(__file__)


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = f"{_HERE}:Battle"
    config.total_agent_steps = 10_000_000  # of players
    config.unroll_length = 20
    # 11 games against itself and 10 against snapshots. Half of them are slower: 40,000
    # steps of players a second instead of 58,000.
    config.actors.environments = 192
    config.batch_size = 192
    config.league.every = 500_000
    config.league.size = 8
    config.league.draw = "hard"
    # Convolutions would take five times as many multiplications. Cells are normalised
    # (the default): without that the policy was still passive after 500,000 steps.
    config.network.torso = "mlp"
    config.learner.precision = "auto"
    config.learner.passes = 2  # by V-trace, still passive after 900,000 steps
    config.evaluation.greedy = False  # as it acts against itself
    config.evaluation.environments = 96
    return config


class Battle:
    """E games as a VectorGame. Rewards and observations are those of battle_v4.

    parallel_env of magent2 0.3.4 gives red's actions to blue in the first move of a
    game. Here each team has its own.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, num_envs, map_size=16, max_cycles=1000, render_mode=None):
        try:
            from magent2.environments import battle_v4
        except ModuleNotFoundError as error:
            raise errors.BadInput(
                "experiments/battle.py needs an extra that is not installed. Run pip"
                " install 'impala_mp[magent2]'."
            ) from error
        self._envs = [
            battle_v4.parallel_env(map_size, max_cycles, render_mode=render_mode)
            for _ in range(num_envs)
        ]
        first = self._envs[0]
        self.num_games, self.players = num_envs, tuple(first.possible_agents)
        self.observation_space = first.observation_space(self.players[0])
        self.action_space = first.action_space(self.players[0])
        self._max_moves = max_cycles
        shape = num_envs, len(self.players)
        self._seen = np.zeros((*shape, *self.observation_space.shape), np.float32)
        self._reward, self._alive = np.zeros(shape, np.float32), np.zeros(shape, bool)
        self._moves = np.zeros(num_envs, int)
        self._members = [()] * num_envs  # of each team, where living players are

    def reset(self, seed):
        seeds = np.random.SeedSequence(seed).generate_state(self.num_games) >> 1
        for game, own in enumerate(seeds):
            self._begin(game, int(own))
        self._reward[:] = self._moves[:] = 0
        nothing = np.zeros(self._alive.shape, bool)
        return self._rows(nothing, nothing, self._alive)

    def step(self, actions):
        actions = actions.astype(np.int32)
        begins = ~self._alive.any(1)
        present = self._alive | begins[:, None]
        over = np.zeros(self.num_games, bool)
        self._reward[begins] = 0.0
        self._moves = np.where(begins, 0, self._moves + 1)
        for game in range(self.num_games):
            if begins[game]:
                self._begin(game, None)
            else:
                over[game] = self._move(game, actions[game])
        terminated = present & (~self._alive | over[:, None])
        truncated = present & (self._moves >= self._max_moves)[:, None]
        self._alive &= ~(terminated | truncated)
        return self._rows(terminated, truncated, present)

    def render(self):
        return self._envs[0].render()

    def close(self):
        for env in self._envs:
            env.close()

    def _begin(self, game, seed):
        env = self._envs[game]
        env.reset(seed=seed)
        self._alive[game] = True
        self._find_members(game)
        for team, members in zip(env.handles, self._members[game], strict=True):
            self._seen[game][members], _ = env.env.get_observation(team)

    def _find_members(self, game):
        env, count = self._envs[game], len(self.players) // 2
        self._members[game] = [
            slice(number * count, number * count + count)  # faster than their numbers
            if env.env.get_num(team) == count
            else env.env.get_agent_id(team)
            for number, team in enumerate(env.handles)
        ]

    def _move(self, game, actions):
        """Moves all players; returns whether the game is over."""
        env, seen, reward = self._envs[game], self._seen[game], self._reward[game]
        grid, all_live = env.env, True
        teams = list(zip(env.handles, self._members[game], strict=True))
        for team, members in teams:
            grid.set_action(team, actions[members])
        is_over = grid.step()
        for team, members in teams:
            seen[members], _ = grid.get_observation(team)
            reward[members] = grid.get_reward(team)
            alive = grid.get_alive(team)
            if not alive.all():
                self._alive[game, members], all_live = alive, False
        grid.clear_dead()
        if not all_live:
            self._find_members(game)
        return is_over

    def _rows(self, terminated, truncated, present):
        return vector_games.Rows(
            self._seen, self._reward, terminated, truncated, self._alive, present
        )
