"""Games that ended in a batch, with the user's numbers by name."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from impala_mp import types
from impala_mp.transport import name_tables
from impala_mp.workers import batcher


class Games(NamedTuple):
    """Full games, in the order of the batch's rows."""

    returns: np.ndarray  # float32 [G], undiscounted and unclipped
    lengths: np.ndarray  # int32 [G], agent steps
    tasks: np.ndarray  # int64 [G], or players; see Groups
    numbers: np.ndarray  # float64 [G, names], NaN where a game has none


_ROW = 3  # numbers of a row before the user's
ROW = _ROW + types.NUMBERS


def rows(games: Games) -> list[list[float]]:
    """Returns games as rows of ROW numbers, NaN where a game has none."""
    found = np.full((len(games.returns), ROW), np.nan)
    found[:, 0], found[:, 1], found[:, 2] = games.returns, games.lengths, games.tasks
    found[:, _ROW : _ROW + games.numbers.shape[1]] = games.numbers
    listed: list[list[float]] = found.tolist()
    return listed


class Groups(NamedTuple):
    """Groups of columns: by task, or by player of a game.

    Actor i plays task i, column j is of player j, modulo their numbers. With a league
    the trajectory has the players.
    """

    num_tasks: int
    num_players: int = 1

    def of(
        self,
        header: types.Header,
        end: types.EpisodeEnd,
        rows: np.ndarray,
        columns: np.ndarray,
    ) -> np.ndarray:
        """Returns the groups of games that end in rows and columns of a batch."""
        if self.num_players > 1 and end.game:  # a league gives columns other players
            changing: np.ndarray = end.game.player[rows, columns]
            return changing
        if self.num_players > 1:
            players: np.ndarray = header.column[columns] % self.num_players
            return players
        tasks: np.ndarray = header.actor[columns] % self.num_tasks
        return tasks


class EndedGames:
    """Finder of ended games; gives each name of a user's number one column."""

    def __init__(
        self,
        of_actors: Sequence[name_tables.NameTable],
        own: name_tables.NameTable,
        groups: Groups,
    ) -> None:
        """`own` has the names of all actors; this process writes it."""
        self._of_actors, self._own, self._groups = of_actors, own, groups
        self._columns: list[list[int]] = [[] for _ in of_actors]  # -1: no room

    @property
    def names(self) -> list[str]:
        """Names of the columns of `Games.numbers`."""
        return self._own.names()

    def add_names(self, names: Sequence[str]) -> None:
        """Adds the names of a run before, in their order."""
        for name in names:
            self._column(name)

    def find(self, batch: batcher.Batch) -> Games:
        """Returns the games that ended in the fresh trajectories of a batch."""
        end = batch.episode_end
        rows, columns = np.nonzero(~np.isnan(end.episode_return))
        return Games(
            end.episode_return[rows, columns],
            end.episode_length[rows, columns],
            self._groups.of(batch.header, end, rows, columns),
            self._numbers(end, batch.header, rows, columns),
        )

    def of_rows(self, rows: Sequence[Sequence[float]], names: Sequence[str]) -> Games:
        """Returns games that another process found, whose numbers have `names`."""
        columns = [self._column(name) for name in names]
        found = np.array(rows, np.float64).reshape(len(rows), -1)
        numbers = np.full((len(rows), len(self.names)), np.nan)
        for theirs, own in enumerate(columns):
            if own >= 0:
                numbers[:, own] = found[:, _ROW + theirs]
        returns, lengths, tasks = found[:, :_ROW].T
        return Games(
            returns.astype(np.float32),
            lengths.astype(np.int32),
            tasks.astype(np.int64),
            numbers,
        )

    def _numbers(
        self,
        end: types.EpisodeEnd,
        header: types.Header,
        rows: np.ndarray,
        columns: np.ndarray,
    ) -> np.ndarray:
        has = header.has_numbers[columns] > 0
        if not has.any():
            return np.full((len(rows), len(self.names)), np.nan)
        actors = header.actor[columns]
        present = np.unique(actors[has]).tolist()
        places = {actor: self._places(actor) for actor in present}
        found = np.full((len(rows), len(self.names)), np.nan)
        for actor, place in places.items():
            games = np.flatnonzero(has & (actors == actor))
            own = end.numbers[rows[games], columns[games], : len(place)]
            kept = np.array(place) >= 0
            found[np.ix_(games, np.array(place)[kept])] = own[:, kept]
        return found

    def _places(self, actor: int) -> list[int]:
        """Returns the columns here of an actor's columns."""
        known, names = self._columns[actor], self._of_actors[actor].names()
        known += [self._column(name) for name in names[len(known) :]]
        return known

    def _column(self, name: str) -> int:
        names = self.names
        if name not in names:
            if len(names) >= types.NUMBERS:
                return -1
            self._own.append(name)
        return self.names.index(name)
