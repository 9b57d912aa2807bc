"""Games in which frozen snapshots of the policy play: whose column is whose.

The first games are those of the newest policy against itself: each player is a column
of the policy. In each of the other games the newest policy has one side, and guests
have the others. The policy has a column for each player of its side there, and takes
another side when a game ends.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.config import derived, league
from impala_mp.environments import factory, roster, several, vector


class LeagueEnvironment(vector.VectorEnvironment):
    """Games of which the policy has `num_envs` columns, and guests have the rest.

    Time steps and ends have all columns, game by game. `split` and `split_end` return
    those of the policy, then those of the guests.
    """

    def __init__(self, games: several.SeveralEnvironment, num_with_guests: int) -> None:
        """Takes games of a single policy, the last `num_with_guests` with guests."""
        self._games, self.specs, self.numbers = games, games.specs, games.numbers
        num_players = len(games.players)
        every = np.arange(games.num_envs).reshape(-1, num_players)
        self._alone, self._shared = np.split(every, [len(every) - num_with_guests])
        sides = list(roster.sides_of(games.players).values())
        self._members = np.array(sides)  # [S, players of a side]
        self._others = np.array(  # [S, other players]
            [[p for p in range(num_players) if p not in side] for side in sides]
        )
        size = self._members.shape[1]
        self.num_with_guests, self.side_size = num_with_guests, size
        self.num_envs = self._alone.size + num_with_guests * size
        self.guests_a_game = num_players - size
        self._side = np.arange(num_with_guests) % len(sides)  # of the policy
        self.opponents = np.zeros(num_with_guests, np.int64)  # versions; see `seat`
        self._clear()
        self._take_sides()

    def _clear(self) -> None:
        self.begun = np.ones(self.num_with_guests, bool)  # by the last row
        self._over = np.zeros(self.num_with_guests, bool)
        self._totals = np.zeros((self.num_with_guests, len(self._games.players)))

    def _take_sides(self) -> None:
        """Finds the columns of the policy and of the guests."""

        def columns(members: np.ndarray) -> np.ndarray:
            own: np.ndarray = np.take_along_axis(
                self._shared, members[self._side], axis=1
            ).reshape(-1)
            return own

        alone = self._alone.reshape(-1)
        self._ours = np.concatenate([alone, columns(self._members)])
        self._theirs = columns(self._others)
        self._player = (self._ours % len(self._games.players)).astype(np.int32)

    def reset(self, seeds: Sequence[int]) -> types.TimeStep:
        """Restarts every game, by the seed of one of the policy's columns."""
        self._clear()
        own = np.repeat(seeds[: self._games.num_games], len(self._games.players))
        return self._games.reset(own.tolist())

    def step(self, action: types.Nest) -> tuple[types.TimeStep, types.EpisodeEnd]:
        """Steps every game by the actions of the policy and of the guests, a pair."""
        time_step, end = self._games.step(nest.map_structure(self._join, *action))
        self.begun = self._over
        if self.begun.any():
            num_sides = len(self._members)
            self._side = np.where(self.begun, self._side + 1, self._side) % num_sides
            self._totals[self.begun] = 0.0
            self._take_sides()
        self._totals += time_step.reward[self._shared]
        last = time_step.step_type[self._shared] == types.StepType.LAST
        self._over = last.all(1)
        return time_step, end._replace(game=self._game(self._over & ~self.begun))

    def _join(self, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        whole = np.empty((self._games.num_envs, *ours.shape[1:]), ours.dtype)
        whole[self._ours], whole[self._theirs] = ours, theirs
        return whole

    def _game(self, over: np.ndarray) -> types.LeagueGame:
        """Returns the games of the policy's columns; `over` are those just ended."""
        count, size = self._alone.size, self.side_size
        opponent = np.zeros(self.num_envs, np.int64)
        opponent[count:] = np.repeat(self.opponents, size)
        result = np.full(self.num_envs, np.nan, np.float32)
        if over.any():
            result[count::size][over] = self._results()[over]
        return types.LeagueGame(self._player, opponent, result)

    def _results(self) -> np.ndarray:
        """Returns the result of the policy's side in each game with guests."""
        totals = self._totals[:, self._members].sum(2)  # [games, sides]
        own = np.take_along_axis(totals, self._side[:, None], 1)[:, 0]
        np.put_along_axis(totals, self._side[:, None], -np.inf, 1)
        best: np.ndarray = totals.max(1)
        return np.where(own > best, 1.0, np.where(own == best, 0.5, 0.0))

    def seat(self, games: np.ndarray, version: int) -> None:
        """Notes the guest of games that have just begun, until they end."""
        self.opponents[games] = version

    # Columns of the policy and of the guests.

    @property
    def own_columns_of_guests(self) -> np.ndarray:
        """The policy's first column in the game of each column of a guest."""
        first = self._alone.size + self.side_size * np.arange(self.num_with_guests)
        return np.repeat(first, self.guests_a_game)

    @property
    def num_columns(self) -> list[int]:
        return [self.num_envs, self.num_with_guests * self.guests_a_game]

    def split(self, time_step: types.TimeStep) -> list[types.TimeStep]:
        return [_take(time_step, columns) for columns in (self._ours, self._theirs)]

    def split_end(self, end: types.EpisodeEnd) -> list[types.EpisodeEnd]:
        rest = end._replace(numbers=(), game=())
        ours, theirs = (_take(rest, each) for each in (self._ours, self._theirs))
        numbers = None if end.numbers is None else end.numbers[self._ours]
        return [ours._replace(numbers=numbers, game=end.game), theirs]

    @property
    def players(self) -> tuple[str, ...]:
        return self._games.players

    @property
    def num_outside(self) -> int:
        return self._games.num_outside

    # Snapshots.

    def state_dict(self) -> dict[str, Any]:
        names = ("_side", "_over", "_totals", "opponents", "begun")
        own = {name: torch.tensor(getattr(self, name)) for name in names}
        return {"league": own, "games": self._games.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, saved in state["league"].items():
            setattr(self, name, saved.numpy().copy())
        self._take_sides()
        self._games.load_state_dict(state["games"])

    def close(self) -> None:
        self._games.close()


def _take(rows: Any, columns: np.ndarray) -> Any:
    return nest.map_structure(lambda leaf: leaf[columns], rows)


def make(config: Any, num_columns: int, task: int) -> vector.VectorEnvironment:
    """Makes the environment of one actor, with a league or without.

    Args:
      num_columns: of the policies.
      task: number of the task, modulo the number of tasks.
    """
    if not derived.has_league(config):
        return factory.make(config.environment, num_columns, task=task)
    players = factory.probe(config.environment).players
    plan = _plan(config, players)
    games = factory.make(config.environment, plan.num_games * len(players))
    assert isinstance(games, several.SeveralEnvironment)
    return LeagueEnvironment(games, plan.num_with_guests)


def _plan(config: Any, players: Sequence[str]) -> league.Plan:
    num_sides = len(roster.sides_of(players))
    return league.plan(
        config.league, config.actors.environments, len(players), num_sides
    )


def check(config: Any, environments: dict[str, specs.EnvironmentSpec]) -> None:
    """Refuses a league that the game cannot have.

    Args:
      environments: the specs by policy.

    Raises:
      BadInput: several policies play, or the sides differ.
    """
    if not derived.has_league(config):
        return
    beginning, cure = (
        f"league.every ({config.league.every}) lets snapshots of one policy play",
        "Set config.league.every=0",
    )
    if config.learner.ranks > 1:
        raise errors.BadInput(
            f"{beginning}, and one learner counts all results: learner.ranks is"
            f" {config.learner.ranks}. {cure}, or config.learner.ranks=1."
        )
    if len(environments) > 1:
        raise errors.BadInput(
            f"{beginning}, and {len(environments)} policies do"
            f" ({', '.join(environments)}). {cure}, or config.environment.sharing=all."
        )
    (spec,) = environments.values()
    sides = roster.sides_of(spec.players)
    if len(sides) < 2:
        raise errors.BadInput(
            f"{beginning} the other sides of a game, and environment.id"
            f" ({config.environment.id!r}) has a single player. {cure}."
        )
    if len({len(members) for members in sides.values()}) > 1:
        sizes = ", ".join(f"{name}: {len(members)}" for name, members in sides.items())
        raise errors.BadInput(
            f"{beginning} any side, and the sides of environment.id"
            f" ({config.environment.id!r}) differ in their players ({sizes}). {cure}."
        )
    if config.actors.environments:  # 0: to be chosen
        _plan(config, spec.players)
