"""Log of a learner's games: statistics of the last ones, and a row for each."""

import os
from collections.abc import Sequence
from typing import Any

from impala_mp.config import derived
from impala_mp.storage import episodes
from impala_mp.transport import name_tables
from impala_mp.workers import batcher, ended_games, episode_statistics, league


def groups(config: Any, players: tuple[str, ...]) -> ended_games.Groups:
    """Returns the groups of the games in a run of `config`; as in `GameLog`."""
    num_tasks = len(derived.task_names(config.environment))
    named = len(derived.suffixes_of_players(players))
    return ended_games.Groups(num_tasks, max(1, named))


class GameLog:
    """Full games that the learner has learned from, each exactly once.

    A saved state has their number. A learner that resumes from it removes later rows,
    because their updates are lost.
    """

    def __init__(
        self,
        config: Any,
        players: tuple[str, ...],
        folder: str,
        of_actors: Sequence[name_tables.NameTable],
        own: name_tables.NameTable,
        the_league: league.League | None = None,
    ) -> None:
        """`folder` is the run's; the tables have the names of the user's numbers.

        `players` are those of the environment's spec. The league takes its results.
        """
        self._league = the_league
        suffixes = derived.episode_suffixes(config.environment, players)
        self._games = ended_games.EndedGames(of_actors, own, groups(config, players))
        self._statistics = episode_statistics.Episodes(suffixes)
        self._rows: episodes.Writer | None = None
        if config.logging.episodes:
            tasks = [suffix.lstrip("/") for suffix in suffixes]
            os.makedirs(folder, exist_ok=True)
            self._rows = episodes.Writer(folder, tasks)

    def add(self, batch: batcher.Batch, agent_steps: int, time_secs: float) -> None:
        """Adds the games that ended in a batch; the progress is that at its end."""
        self._add(self._games.find(batch), agent_steps, time_secs)
        if self._league:
            self._league.add(batch.episode_end.game, agent_steps)

    def add_rows(
        self,
        rows: Sequence[Sequence[float]],
        names: Sequence[str],
        agent_steps: int,
        time_secs: float,
    ) -> None:
        """Adds the games of another rank, as `ended_games.rows` gives them.

        `names` are those of its columns.
        """
        self._add(self._games.of_rows(rows, names), agent_steps, time_secs)

    def _add(
        self, games: ended_games.Games, agent_steps: int, time_secs: float
    ) -> None:
        names = self._games.names
        self._statistics.add(games, names)
        if self._rows:
            self._rows.add(agent_steps, time_secs, *games, names)

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of the last games."""
        of_league = self._league.metrics() if self._league else {}
        return {**self._statistics.metrics(self._games.names), **of_league}

    def return_mean(self) -> float:
        """Mean return of the last 100 games; NaN before there are as many."""
        return self._statistics.return_mean()

    def recent_return(self, least: int) -> float:
        """Mean return of the last games, 100 at most; NaN with fewer than `least`."""
        return self._statistics.return_mean(least)

    def forget(self) -> None:
        """Removes the last games from statistics: another policy plays from now on."""
        self._statistics.forget()

    def flush(self, durable: bool = False) -> None:
        """Writes the rows so far, and the league's results."""
        if self._rows:
            self._rows.flush(durable)
        if self._league:
            self._league.flush()

    def state_dict(self) -> dict[str, Any]:
        rows = self._rows.num_rows if self._rows else 0
        names = list(self._games.names)
        own = {"league": self._league.state_dict()} if self._league else {}
        return {**self._statistics.state_dict(), "names": names, "rows": rows, **own}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Continues from the state of a checkpoint, or begins without one."""
        state = state or {}
        if state:
            self._statistics.load_state_dict(state)
        self._games.add_names(state.get("names", ()))
        if self._rows:
            self._rows.rewind(state.get("rows", 0), self._games.names)
        if self._league:
            self._league.restore(state.get("league", {}))
