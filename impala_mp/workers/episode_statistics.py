"""Statistics of the last full games in learned batches, and the number of games."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from impala_mp import types
from impala_mp.workers import ended_games

LAST = 100  # games
_PARTS = ("", "/min", "/max")  # of a user's number: its mean, minimum and maximum
_ENV = "env/"


def task_names(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the metric names per task; none if there is only one task."""
    several = suffixes if len(suffixes) > 1 else ()
    return tuple(f"episode/{x}{s}" for s in several for x in ("return_mean", "count"))


def number_names(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the keys of the user's numbers, by column; see `with_names`."""
    several = suffixes if len(suffixes) > 1 else ()
    return tuple(
        f"{_ENV}{column}{part}"
        for column in range(types.NUMBERS)
        for part in (*_PARTS, *several)
    )


def with_names(record: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    """Returns a record with the user's names in place of columns; NaN is left out."""
    found = {}
    for key, value in record.items():
        if key.startswith(_ENV):
            column, slash, part = key.removeprefix(_ENV).partition("/")
            if int(column) >= len(names) or np.isnan(value):
                continue
            key = f"{_ENV}{names[int(column)]}{slash}{part}"
        found[key] = value
    return found


class _Games:
    """The last 100 games as (return, length), their numbers, and the number of all."""

    def __init__(self) -> None:
        self.last = collections.deque[tuple[float, float]](maxlen=LAST)
        self.numbers: dict[str, collections.deque[float]] = {}
        self.count = 0

    def add(self, games: ended_games.Games, names: Sequence[str]) -> None:
        self.count += len(games.returns)
        ends = (games.returns[-LAST:].tolist(), games.lengths[-LAST:].tolist())
        self.last.extend(zip(*ends, strict=True))
        for name, column in zip(names, games.numbers.T, strict=True):
            values = column[~np.isnan(column)]
            if len(values):
                self.number(name).extend(values[-LAST:].tolist())

    def number(self, name: str) -> collections.deque[float]:
        return self.numbers.setdefault(name, collections.deque(maxlen=LAST))

    def return_mean(self) -> float:
        return float(np.mean([each for each, _ in self.last])) if self.last else np.nan


class Episodes:
    """Statistics of all tasks together, and of each."""

    def __init__(self, suffixes: tuple[str, ...] = ("",)) -> None:
        """`suffixes` name the tasks; actor i plays task i modulo their number."""
        self._all = _Games()
        self._by_task = {suffix: _Games() for suffix in suffixes}

    def return_mean(self, least: int = LAST) -> float:
        """Mean return of the last 100 games; NaN with fewer than `least`."""
        enough = len(self._all.last) >= least
        return self._all.return_mean() if enough else np.nan

    def forget(self) -> None:
        """Removes the last games; their number stays."""
        for games in (self._all, *self._by_task.values()):
            games.last.clear()
            games.numbers.clear()

    def add(self, games: ended_games.Games, names: Sequence[str]) -> None:
        """Adds the games that ended in a batch; `names` are those of their numbers."""
        if not len(games.returns):
            return
        self._all.add(games, names)
        if len(self._by_task) > 1:
            for task, mine in enumerate(self._by_task.values()):
                own = games.tasks == task
                mine.add(ended_games.Games(*(each[own] for each in games)), names)

    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """Returns the metrics under episode/, and those under env/ by column."""
        if not self._all.last:
            return {"episode/count": self._all.count}
        returns, lengths = zip(*self._all.last, strict=True)
        found = {
            "episode/return_mean": self._all.return_mean(),
            "episode/return_min": min(returns),
            "episode/return_max": max(returns),
            "episode/length_mean": float(np.mean(lengths)),
            "episode/count": self._all.count,
        }
        if len(self._by_task) > 1:
            for suffix, games in self._by_task.items():
                found[f"episode/return_mean{suffix}"] = games.return_mean()
                found[f"episode/count{suffix}"] = games.count
        return {**found, **dict(self._numbers(names))}

    def _numbers(self, names: Sequence[str]) -> Iterator[tuple[str, float]]:
        for column, name in enumerate(names):
            values = self._all.numbers.get(name)
            if not values:
                continue
            three = (float(np.mean(values)), min(values), max(values))
            for part, value in zip(_PARTS, three, strict=True):
                yield f"{_ENV}{column}{part}", value
            if len(self._by_task) > 1:
                for suffix, games in self._by_task.items():
                    if own := games.numbers.get(name):
                        yield f"{_ENV}{column}{suffix}", float(np.mean(own))

    def _games(self) -> list[_Games]:
        """Returns the statistics of all, and with several tasks of each."""
        several = self._by_task.values() if len(self._by_task) > 1 else ()
        return [self._all, *several]

    def state_dict(self) -> dict[str, Any]:
        return {
            "last": [list(games.last) for games in self._games()],
            "counts": [games.count for games in self._games()],
            "numbers": [
                {name: list(values) for name, values in games.numbers.items()}
                for games in self._games()
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        games = self._games()
        # Older checkpoints save a single task twice, and have no numbers.
        numbers = state.get("numbers", [{}] * len(games))
        for i, mine in enumerate(games):
            mine.last.extend(tuple(each) for each in state["last"][i])
            mine.count = state["counts"][i]
            for name, values in numbers[i].items():
                mine.number(name).extend(values)
