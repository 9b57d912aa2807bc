"""Statistics of the last full games in learned batches, and the number of games."""

import collections
from typing import Any

import numpy as np


def task_names(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the metric names per task; none if there is only one task."""
    several = suffixes if len(suffixes) > 1 else ()
    return tuple(f"episode/{x}{s}" for s in several for x in ("return_mean", "count"))


class _Games:
    """The last 100 games as (return, length), and the number of all."""

    def __init__(self) -> None:
        self.last: collections.deque[tuple[float, float]] = collections.deque(
            maxlen=100
        )
        self.count = 0

    def add(self, games: list[tuple[float, float]]) -> None:
        self.last.extend(games)
        self.count += len(games)

    def return_mean(self) -> float:
        return float(np.mean([each for each, _ in self.last])) if self.last else np.nan


class Episodes:
    """Statistics of all tasks together, and of each."""

    def __init__(self, suffixes: tuple[str, ...] = ("",)) -> None:
        """`suffixes` name the tasks; actor i plays task i modulo their number."""
        self._all = _Games()
        self._by_task = {suffix: _Games() for suffix in suffixes}

    def add(self, returns: np.ndarray, lengths: np.ndarray, actors: np.ndarray) -> None:
        """Adds the games that ended in a batch.

        Args:
          returns, lengths: [T, B], as `types.EpisodeEnd` has them.
          actors: [B].
        """
        rows, columns = np.nonzero(~np.isnan(returns))
        ends = zip(
            returns[rows, columns].tolist(),
            lengths[rows, columns].tolist(),
            strict=True,
        )
        by_task: list[list[tuple[float, float]]] = [[] for _ in self._by_task]
        games = list(ends)
        for game, actor in zip(games, actors[columns].tolist(), strict=True):
            by_task[actor % len(by_task)].append(game)
        self._all.add(games)
        for mine, new in zip(self._by_task.values(), by_task, strict=True):
            mine.add(new)

    def metrics(self) -> dict[str, float]:
        """Returns the metrics under episode/."""
        if not self._all.last:
            return {"episode/count": 0}
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
        return found

    def _games(self) -> list[_Games]:
        return [self._all, *self._by_task.values()]

    def state_dict(self) -> dict[str, Any]:
        return {
            "last": [list(games.last) for games in self._games()],
            "counts": [games.count for games in self._games()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved = zip(state["last"], state["counts"], strict=True)
        for games, (last, count) in zip(self._games(), saved, strict=True):
            games.last.extend(tuple(each) for each in last)
            games.count = count
