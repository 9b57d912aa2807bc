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
    """

    def __init__(self, source: vector_games.Source) -> None:
        self._source, self.spec = source, source.spec
        self.num_games, self._num_players = source.num_games, len(source.spec.players)
        self.num_envs = source.num_games * self._num_players
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

        Actions where `acts` was False are ignored. Once no player acts in a game, its
        next row begins another one.

        Raises:
          BadData: an observation or a reward cannot be learned from, or a player has
            left without an end.
        """
        shape = self.num_games, self._num_players
        rows = self._source.step(
            nest.map_structure(
                lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), action
            )
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
                f"player {self.spec.players[column % self._num_players]!r} has left the"
                " game without being terminated or truncated. Report its end with its"
                " last observation",
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
        time_step = types.TimeStep(
            step_type=step_type,
            reward=reward,
            discount=(~terminated).astype(np.float32),
            observation=nest.map_structure(
                lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows.observation
            ),
            acts=rows.acts.reshape(-1) & (step_type != types.StepType.LAST),
        )
        self._lengths += played
        self._plays = begins | (played & ~ended)
        return time_step, ended

    # Pictures and snapshots.

    @property
    def draws(self) -> bool:
        metadata = getattr(self.unwrapped, "metadata", {})
        return "rgb_array" in (metadata.get("render_modes") or ())

    def frame(self) -> np.ndarray:
        try:
            drawn = self._source.render()
        except Exception as error:  # of a user's code, or of a missing package
            raise errors.BadInput(
                f"{self.unwrapped} renders no pictures: {error}"
            ) from error
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
