"""Adapter of games of several players to time steps: each player is a column."""

import types as python_types
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from impala_mp import errors, nest, types
from impala_mp.environments import (
    bad_data,
    episode_numbers,
    snapshot,
    vector,
    vector_games,
)


class SeveralEnvironment(vector.VectorEnvironment):
    """E games of P players, as E * P columns, game by game.

    A player's episode goes from FIRST, where it enters the game, to LAST, where it is
    terminated or truncated. LAST goes on while it is not in the game. No row of a
    column is skipped: rows in which the player waits for others are MID, and `acts` is
    False there. The next call may overwrite returned arrays.

    With several policies the observation of a time step is a tuple, with the columns of
    each policy, and so is an action; see `split`.
    """

    def __init__(self, source: vector_games.Source) -> None:
        self._source, self.specs = source, source.specs
        self.shares = source.shares
        self.num_games, self._num_players = source.num_games, len(source.players)
        self.num_envs = source.num_games * self._num_players
        self._columns = [
            share.columns(self.num_games, self._num_players) for share in self.shares
        ]
        self.numbers = episode_numbers.EpisodeNumbers()
        self._clear()

    @property
    def unwrapped(self) -> Any:
        """The object that plays the games, or the first of them."""
        return self._source.unwrapped

    @property
    def observation_spaces(self) -> list[gymnasium.Space[Any]]:
        return self._source.observation_spaces

    @property
    def num_outside(self) -> int:
        return self._source.num_outside

    def _clear(self) -> None:
        self._plays = np.zeros(self.num_envs, bool)  # within an episode
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int32)

    def reset(self, seeds: Sequence[int]) -> types.TimeStep:
        """Restarts every game, by the seed of its first column; returns rows [E * P].

        Raises:
          BadData: an observation does not fit the space.
        """
        self._clear()
        rows = self._source.reset(list(seeds)[:: self._num_players])
        return self._time_step(rows)[0]

    def step(self, action: types.Nest) -> tuple[types.TimeStep, types.EpisodeEnd]:
        """Steps every game with the agent's `action`, a nest of [E * P, ...].

        With several policies `action` is a tuple of such nests, of their columns.
        Actions where `acts` was False are ignored. Once no player acts in a game, its
        next row begins another one.

        Raises:
          BadData: an observation or a reward cannot be learned from, or a player has
            left without an end.
        """
        count = self.num_games
        rows = self._source.step(
            [
                nest.map_structure(
                    lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), own
                )
                for own in (action if len(self.specs) > 1 else [action])
            ]
        )
        time_step, ended = self._time_step(rows)
        self._returns += time_step.reward
        infos = {c: i for c, i in self._source.infos.items() if ended[c]}
        return time_step, self._take_ended(ended, {episode_numbers.FINAL: infos})

    def _time_step(self, rows: vector_games.Rows) -> tuple[types.TimeStep, np.ndarray]:
        """Returns the time step, and where an episode ends, bool [E * P]."""
        played, present = self._plays, rows.present.reshape(-1)
        if (played & ~present).any():
            column = int(np.flatnonzero(played & ~present)[0])
            raise bad_data.BadData(
                "bad_observations",
                f"player {self.players[column % self._num_players]!r} has left the game"
                " without being terminated or truncated. Report its end with its last"
                " observation",
            )
        terminated = rows.terminated.reshape(-1) & played
        ended = terminated | (rows.truncated.reshape(-1) & played)
        over = (rows.terminated | rows.truncated).reshape(-1)
        begins = present & ~played & ~over
        step_type = np.full(self.num_envs, types.StepType.LAST, np.uint8)
        step_type[begins] = types.StepType.FIRST
        step_type[played & ~ended] = types.StepType.MID
        reward = np.where(played, rows.reward.reshape(-1), 0.0)
        reward = bad_data.rewards(reward, self.num_envs).astype(np.float32)
        observations = tuple(
            nest.map_structure(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), own)
            for own in rows.observation
        )
        time_step = types.TimeStep(
            step_type=step_type,
            reward=reward,
            discount=(~terminated).astype(np.float32),
            observation=observations if len(observations) > 1 else observations[0],
            acts=rows.acts.reshape(-1) & (step_type != types.StepType.LAST),
        )
        self._lengths += played
        self._plays = begins | (played & ~ended)
        return time_step, ended

    # Policies.

    @property
    def players(self) -> tuple[str, ...]:
        return self._source.players

    @property
    def policies(self) -> tuple[str, ...]:
        return tuple(share.policy for share in self.shares)

    @property
    def labels(self) -> tuple[str, ...]:
        if len(self.shares) == 1:
            return self.players
        return tuple(self.shares[policy].policy for policy, _ in self.places)

    @property
    def num_columns(self) -> list[int]:
        return [self.num_games * len(share.players) for share in self.shares]

    @property
    def places(self) -> list[tuple[int, int]]:
        found = {
            player: (policy, column)
            for policy, share in enumerate(self.shares)
            for column, player in enumerate(share.players)
        }
        return [found[player] for player in range(self._num_players)]

    def split(self, time_step: types.TimeStep) -> list[types.TimeStep]:
        if len(self.shares) == 1:
            return [time_step]
        return [
            types.TimeStep(
                time_step.step_type[columns],
                time_step.reward[columns],
                time_step.discount[columns],
                observation,
                time_step.acts[columns],
            )
            for columns, observation in zip(
                self._columns, time_step.observation, strict=True
            )
        ]

    def split_end(self, end: types.EpisodeEnd) -> list[types.EpisodeEnd]:
        if len(self.shares) == 1:
            return [end]
        return [
            types.EpisodeEnd(
                end.episode_return[columns],
                end.episode_length[columns],
                None if end.numbers is None else end.numbers[columns],
            )
            for columns in self._columns
        ]

    # Pictures and snapshots.

    @property
    def draws(self) -> bool:
        metadata = getattr(self.unwrapped, "metadata", {})
        return "rgb_array" in (metadata.get("render_modes") or ())

    def frame(self) -> np.ndarray:
        try:
            drawn = self._source.render()
        except Exception as error:  # of a user's code, or of a missing package
            raise vector.cannot_draw(self.unwrapped, error) from error
        if drawn is None:
            raise errors.BadInput(
                f"{self.unwrapped} renders no pictures. It needs the render mode"
                " rgb_array. Let the factory take render_mode and pass it on."
            )
        return vector.picture(np.asarray(drawn))

    def state_dict(self) -> dict[str, Any]:
        return snapshot.take(self._state())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        snapshot.restore(self._state(), state)

    def _state(self) -> python_types.SimpleNamespace:
        return python_types.SimpleNamespace(
            plays=self._plays,
            returns=self._returns,
            lengths=self._lengths,
            source=self._source.state(),
        )

    def close(self) -> None:
        self._source.close()
