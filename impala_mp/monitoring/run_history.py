"""Games, evaluations and other events of a run, as arrays over its progress."""

import array
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from impala_mp import errors
from impala_mp.config import by_value
from impala_mp.storage import episodes, evaluations, files, metrics

RETURN = "episode/return_mean"
LAST_GAMES = 100  # in the mean and the band
_LINE_POINTS = 1000
_ENOUGH_GAMES = 20  # for percentiles that one outlier does not move
_LIMIT = 1e300  # of a return
_STATISTICS = ("mean", "low", "high")  # of an evaluation
_RECORDED = [f"evaluation/return_{name}" for name in _STATISTICS]
_RESTARTS, _RUN = "health/restarts", "health/run"
_READ = (*metrics.COUNTERS, *_RECORDED, _RESTARTS, _RUN)  # of a record
_POLICIES = (evaluations.GREEDY, evaluations.SAMPLED)
# Names of events, in the order of a legend.
RESTART, RESUME, CHANGE = "restart of a process", "resume", "change of a value"

Series = tuple[np.ndarray, np.ndarray]


class Line(NamedTuple):
    """Statistics of the last games, at moments when games ended."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray  # mean of the lowest fifth of them
    high: np.ndarray  # mean of the highest fifth of them
    usual: np.ndarray  # 10th and 90th percentiles, where they are of enough games


class Evaluations(NamedTuple):
    """Mean returns of evaluations, each with its 95 % interval, NaN where unknown."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class History(NamedTuple):
    """Events of one run over one of its counters."""

    games: Series  # (x, return) of each
    line: Line
    evaluations: dict[str, Evaluations]  # by policy; "" where it is unknown
    random: float | None  # mean return of the random policy
    events: dict[str, np.ndarray]  # x of restarts, resumes and live changes


class Identity(NamedTuple):
    """Environment, algorithm and seed of a run; "" where unknown."""

    environment: str
    algorithm: str
    seed: str


def load(folder: str, x: str, key: str) -> Series:
    """Returns (x, y) of one run, from its records.

    Raises:
      BadInput: the run has no records with both.
    """
    places, values = _Progress(folder, x, (key,)).known(key)
    if not len(places):
        known = sorted({k for record in metrics.records(folder) for k in record})
        raise errors.BadInput(
            f"{folder} has no record with {x} and {key}. It has"
            f" {', '.join(known) or 'none at all'}."
        )
    return places, values


def read(folder: str, x: str) -> History:
    """Reads games and events of a run, over its counter `x`.

    A run without episodes.csv has the mean of its records, and no games.

    Raises:
      BadInput: a file cannot be read, or there is neither a game nor a record.
    """
    progress = _Progress(folder, x, _READ)
    games = _games(episodes.read(folder), progress)
    if len(games[0]):
        line = summarise(*games)
    else:
        places, mean = load(folder, x, RETURN)
        unknown = np.full(len(mean), np.nan)
        line = Line(places, mean, unknown, unknown, np.zeros(0))
    found = evaluations.read(folder)
    return History(
        games,
        line,
        _evaluations(found, progress) if found else _recorded_evaluations(progress),
        _random(found),
        _events(progress, _changes(folder)),
    )


def summarise(x: np.ndarray, returns: np.ndarray) -> Line:
    """Returns statistics of the last 100 games, or of all so far while they are fewer.

    The band has means of fifths. Percentiles of wins and losses would only jump.

    Args:
      x: [G], not decreasing. The games of one batch have the same.
      returns: [G].
    """
    wanted = np.linspace(x[0], x[-1], _LINE_POINTS)
    ends = np.unique(np.searchsorted(x, wanted, side="right") - 1)
    none = np.full(LAST_GAMES - 1, np.nan)
    padded = np.concatenate([none, returns])
    windows = np.lib.stride_tricks.sliding_window_view(padded, LAST_GAMES)[ends]
    windows = np.sort(windows, axis=1)  # NaN comes last
    count = np.minimum(ends + 1, LAST_GAMES)
    fifth = -(-count // 5)
    enough = count >= min(_ENOUGH_GAMES, count[-1])
    rows = np.arange(len(ends))[enough]
    tenth = np.round(0.1 * (count[enough] - 1)).astype(int)
    return Line(
        x[ends],
        _means(windows, np.zeros_like(count), count),
        _means(windows, np.zeros_like(count), fifth),
        _means(windows, count - fifth, count),
        windows[[rows, rows], [tenth, count[enough] - 1 - tenth]].ravel(),
    )


def _means(windows: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns the mean of the columns from `start` to `end` of each row."""
    columns = np.arange(windows.shape[1])
    wanted = (columns >= start[:, None]) & (columns < end[:, None])
    means: np.ndarray = np.where(wanted, windows, 0.0).sum(1) / (end - start)
    return means


def identify(folder: str) -> Identity:
    """Reads which experiment a run is. A config that is missing or damaged is unknown.

    The config of any version will do, so its fields are not validated.
    """
    try:
        config = files.read_json(os.path.join(folder, "config.json"))
    except (OSError, ValueError):
        config = None
    config = config if isinstance(config, dict) else {}
    environment = config.get("environment")
    name = environment.get("id") if isinstance(environment, dict) else None
    algorithm, seed = config.get("algorithm"), config.get("seed")
    return Identity(
        by_value.without_digests(name) if isinstance(name, str) else "",
        algorithm if isinstance(algorithm, str) else "",
        str(seed) if files.is_number(seed) else "",
    )


class _Progress:
    """Numbers of the records of a run over `x`, one of its counters."""

    def __init__(self, folder: str, x: str, names: Iterable[str]) -> None:
        """Reads `x` and `names` alone, because a run may have millions of records."""
        found = {name: array.array("d") for name in (x, *names)}
        for record in metrics.records(folder):
            for name, column in found.items():
                column.append(_number(record.get(name)))
        self.x = x
        self.columns = {name: np.array(column) for name, column in found.items()}

    def known(self, name: str) -> Series:
        """Returns (`x`, value) of the records that have both."""
        places, values = self.columns[self.x], self.columns[name]
        both = np.isfinite(places) & np.isfinite(values)
        return places[both], values[both]

    def places(self, counter: str, values: Any) -> np.ndarray:
        """Returns `x` at some values of `counter`, between records on a straight line.

        Beyond the last record the line is that through 0. Without a record it is NaN.
        """
        values = np.asarray(values, np.float64)
        if counter == self.x:
            return values
        here, there = (np.r_[0.0, each] for each in self.known(counter))
        order = np.argsort(there, kind="stable")
        there, here = there[order], here[order]
        ratio = here[-1] / there[-1] if there[-1] > 0 else np.nan
        between = np.interp(values, there, here)
        return np.where(values > there[-1], values * ratio, between)

    def place(self, event: dict[str, Any]) -> float:
        """Returns `x` of an event that has one of the counters; else NaN."""
        for counter in (self.x, "agent_steps", "updates"):
            if files.is_number(event.get(counter)):
                return float(self.places(counter, event[counter]))
        return np.nan


def _floats(values: Iterable[Any]) -> np.ndarray:
    return np.array(list(values), np.float64)


def _number(value: Any) -> float:
    return value if files.is_number(value) else np.nan


def _games(columns: dict[str, Any], progress: _Progress) -> Series:
    """Returns (x, return) of the games, in the order of x."""
    if not columns:
        return np.zeros(0), np.zeros(0)
    counter = "time_secs" if progress.x == "time_secs" else "agent_steps"
    x, returns = progress.places(counter, columns[counter]), columns["return"]
    good = np.isfinite(x) & (np.abs(returns) < _LIMIT)
    x, returns = x[good], returns[good]
    order = np.argsort(x, kind="stable")
    return x[order], returns[order]


def _evaluations(
    found: list[dict[str, Any]], progress: _Progress
) -> dict[str, Evaluations]:
    """Returns the evaluations of the run's policy, greedy and sampled."""
    rows: dict[str, dict[float, list[float]]] = {}
    for (policy, _), each in evaluations.chosen(found).items():
        x = progress.place(each)
        if policy in _POLICIES and np.isfinite(x):
            values = [_number(each.get(name)) for name in _STATISTICS]
            rows.setdefault(policy, {})[x] = [x, *values]
    tables = {k: np.array([v[x] for x in sorted(v)]).T for k, v in sorted(rows.items())}
    return {policy: _as_evaluations(*table) for policy, table in tables.items()}


def _recorded_evaluations(progress: _Progress) -> dict[str, Evaluations]:
    """Returns the evaluations in the records of a run without evaluations.jsonl."""
    names = (progress.x, *_RECORDED)
    found = _as_evaluations(*(progress.columns[name] for name in names))
    return {"": found} if len(found.x) else {}


def _as_evaluations(
    x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Evaluations:
    """Returns those with a place and a mean, and their intervals where they hold it."""
    good = np.isfinite(x) & np.isfinite(mean)
    holds = (low <= mean) & (mean <= high)
    low, high = (np.where(holds, each, np.nan) for each in (low, high))
    return Evaluations(x[good], mean[good], low[good], high[good])


def _random(found: list[dict[str, Any]]) -> float | None:
    random = [x["mean"] for x in found if x["policy"] == evaluations.RANDOM]
    return float(random[-1]) if random else None


def _events(
    progress: _Progress, changes: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Returns x of each kind of event that there was."""
    places = {
        RESTART: _growth(progress, _RESTARTS, 0.0),
        RESUME: _growth(progress, _RUN, np.inf),
        CHANGE: _floats(map(progress.place, changes)),
    }
    finite = {name: np.unique(x[np.isfinite(x)]) for name, x in places.items()}
    return {name: x for name, x in finite.items() if len(x)}


def _growth(progress: _Progress, counter: str, before: float) -> np.ndarray:
    """Returns x of the records in which a counter is larger than in the one before.

    Args:
      before: value before the first record; infinite: the first is no growth.
    """
    places, values = progress.known(counter)
    return places[np.diff(values, prepend=before) > 0]


def _changes(folder: str) -> list[dict[str, Any]]:
    """Returns the lines of changes.jsonl, with their counters under the usual names."""
    found = files.json_objects(os.path.join(folder, "changes.jsonl"))
    return [{**change, "updates": change.get("update")} for change in found]
