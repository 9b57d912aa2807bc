"""Games of several players: one interface for PettingZoo's and Gymnasium's.

PettingZoo is never imported: a game is known by its attributes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from impala_mp import errors
from impala_mp.environments import bad_data, contract


class Moment(NamedTuple):
    """Results of a reset or a move. Keys are players.

    `observations` has the players that are in the game, in their last moment as well.
    """

    observations: Mapping[str, Any]
    rewards: Mapping[str, Any]  # of the move that led here; 0 for players without
    terminated: Mapping[str, Any]
    truncated: Mapping[str, Any]
    acting: frozenset[str]  # those whose action the next move reads; empty: game over
    infos: Mapping[str, Any]


class Game(Protocol):
    """One game."""

    players: tuple[str, ...]
    env: Any  # what it plays

    def spaces(self, player: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        """Returns the spaces of observations and actions."""

    def reset(self, seed: int | None) -> Moment:
        """Starts a game."""

    def step(self, actions: Mapping[str, Any]) -> Moment:
        """Moves, by the actions of those who act."""


def is_game(made: Any) -> bool:
    """Returns whether PettingZoo's interface is there."""
    return hasattr(made, "possible_agents") or hasattr(made, "agent_iter")


def adapt(name: str, made: Any) -> Game:
    """Returns a game of PettingZoo, by turns or in parallel.

    Raises:
      BadInput: its players are unknown, or their spaces.
    """
    players = getattr(made, "possible_agents", None)
    if not players:
        raise errors.BadInput(
            f"environment.id ({name!r}) has no possible_agents, so its players are"
            " unknown before they come. Set the attribute possible_agents to the ids of"
            " all players that may ever take part."
        )
    names = {str(each).replace("/", "_") for each in players}
    if len(names) < len(players) or not all(isinstance(x, str) for x in players):
        raise errors.BadInput(
            f"environment.id ({name!r}) has possible_agents {list(players)}. The ids of"
            " players must be different strings. Name them so."
        )
    for player in players:
        contract.check_spaces_of(name, made, player)
    return Turns(made) if hasattr(made, "agent_iter") else Parallel(made)


class _PettingZoo:
    """Parts that both of PettingZoo's interfaces share."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.players = tuple(env.possible_agents)

    def spaces(self, player: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        return self.env.observation_space(player), self.env.action_space(player)


class Parallel(_PettingZoo):
    """PettingZoo's ParallelEnv: all players that are alive act at once."""

    def reset(self, seed: int | None) -> Moment:
        observations, infos = self.env.reset(seed=seed)
        return Moment(observations, {}, {}, {}, frozenset(self.env.agents), infos)

    def step(self, actions: Mapping[str, Any]) -> Moment:
        observations, rewards, *ends, infos = self.env.step(dict(actions))
        terminated, truncated = ends
        acting = frozenset(self.env.agents)
        return Moment(observations, rewards, terminated, truncated, acting, infos)


class Turns(_PettingZoo):
    """PettingZoo's AECEnv: one player moves, and all the others wait.

    Rewards are those of each single move. They are read before players that are gone
    leave, because that step clears them.
    """

    def reset(self, seed: int | None) -> Moment:
        self.env.reset(seed=seed)
        return self._moment({})

    def step(self, actions: Mapping[str, Any]) -> Moment:
        self.env.step(actions[self.env.agent_selection])
        return self._moment({name: self.env.rewards[name] for name in self.env.agents})

    def _moment(self, rewards: Mapping[str, Any]) -> Moment:
        env = self.env
        observations = {name: env.observe(name) for name in env.agents}
        terminated, truncated = dict(env.terminations), dict(env.truncations)
        infos = dict(env.infos)
        while env.agents and _has_ended(env, env.agent_selection):
            env.step(None)
        if not env.agents:
            acting = frozenset[str]()
        else:  # games give a mask to the player that is to move alone
            mover = env.agent_selection
            acting, observations[mover] = frozenset([mover]), env.observe(mover)
        return Moment(observations, rewards, terminated, truncated, acting, infos)


def _has_ended(env: Any, player: str) -> bool:
    return bool(env.terminations[player] or env.truncations[player])


class Tuples:
    """A Gymnasium environment whose Tuple spaces have an entry a player.

    `reward`, and optionally `terminated` and `truncated`, are sequences likewise. A
    player whose episode has ended is out until the game is over.
    """

    def __init__(self, name: str, env: gymnasium.Env[Any, Any]) -> None:
        """Takes the environment and its id.

        Raises:
          BadInput: its spaces are no Tuples, or of different lengths.
        """
        self.env = env
        self._spaces: tuple[Any, Any] = env.observation_space, env.action_space
        self._left: list[str] = []  # players whose episode goes on
        self._actions: dict[
            str, Any
        ] = {}  # the last ones, also of players that are out
        counts = [len(getattr(space, "spaces", ())) for space in self._spaces]
        are_tuples = all(isinstance(x, gymnasium.spaces.Tuple) for x in self._spaces)
        if not are_tuples or counts[0] != counts[1]:
            raise errors.BadInput(
                f"environment.id ({name!r}) has the spaces {self._spaces[0]} and"
                f" {self._spaces[1]}. With environment.tuples_are_players they must be"
                " Tuples with an entry a player. Set"
                " config.environment.tuples_are_players=False."
            )
        self.players = tuple(f"player_{i}" for i in range(counts[0]))

    def spaces(self, player: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        index = self.players.index(player)
        observation, action = (space.spaces[index] for space in self._spaces)
        return observation, action

    def reset(self, seed: int | None) -> Moment:
        self._left = list(self.players)
        observations, info = self.env.reset(seed=seed)
        return self._moment(observations, {}, {}, {}, info)

    def step(self, actions: Mapping[str, Any]) -> Moment:
        self._actions.update(actions)
        ordered = tuple(self._actions[name] for name in self.players)
        observations, reward, terminated, truncated, info = self.env.step(ordered)
        return self._moment(
            observations,
            self._each(reward),
            self._each(terminated),
            self._each(truncated),
            info,
        )

    def _moment(
        self,
        observations: Any,
        rewards: Mapping[str, Any],
        terminated: Mapping[str, Any],
        truncated: Mapping[str, Any],
        info: Any,
    ) -> Moment:
        seen = dict(zip(self.players, observations, strict=True))
        there = {name: seen[name] for name in self._left}
        self._left = [
            name
            for name in self._left
            if not (terminated.get(name, False) or truncated.get(name, False))
        ]
        acting, infos = frozenset(self._left), dict.fromkeys(self.players, info)
        return Moment(there, rewards, terminated, truncated, acting, infos)

    def _each(self, values: Any) -> dict[str, Any]:
        """Returns the value of each player; one value is that of all."""
        count = len(self.players)
        if np.ndim(values) == 0:
            values = [values] * count
        if len(values) != count:
            raise bad_data.BadData(
                "bad_rewards",
                f"there are {len(values)} values for {count} players: {values!r}."
                " Return one each",
            )
        return dict(zip(self.players, values, strict=True))
