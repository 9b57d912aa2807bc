"""Evidence of a run: what rules ask about its records, and their medians."""

import functools
import math
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from impala_mp.config import base
from impala_mp.monitoring import thinned_records
from impala_mp.storage import files

Record = dict[str, Any]

ERROR, WARNING, HINT = "error", "warning", "hint"

_MAX_RECORDS = 512  # 0.2 % of a run each; a rule over all of them takes microseconds
_MIN_POINTS = 10  # fewer records show no trend
_MIN_GAMES = 20  # a mean of fewer games is mostly noise
# Share of the way from the first return to the best game that counts as solved.
# Pendulum stays at 0.85 of it, because its best game is a lucky start.
_SOLVED = 0.75
_ALMOST = 0.05  # of the best game; a resumed run has no first return to compare with
_ZERO = 1e-8  # smaller is rounding
_LIVE = {field.name: short for short, field in base.LIVE.items()}


class Finding(NamedTuple):
    """One warning in words. The name is the same as long as the fault is."""

    name: str
    severity: str  # ERROR, WARNING or HINT
    sentence: str  # with the numbers
    cure: str  # names the config's field


def thinned(records: Iterable[Record] = ()) -> thinned_records.ThinnedRecords:
    """Returns records thinned to as many as the rules judge."""
    return thinned_records.ThinnedRecords(_MAX_RECORDS, records)


def _steps(record: Record) -> float:
    steps: float = record["agent_steps"]
    return steps


def field(name: str, settings: dict[str, Any]) -> str:
    """Returns the field that sets a value of the config, with what it has, for a cure.

    A schedule, or the range of a population, overrides the field of its name.
    """
    live = _LIVE.get(name)
    others = [f"schedules.{live}", f"population.ranges.{live}"] if live else []
    name = next((other for other in others if settings.get(other)), name)
    value = settings.get(name)
    return f"config.{name}" + ("" if value is None else f" ({value})")


def number(value: float) -> str:
    """Formats a number with three digits, and whole thousands with commas."""
    if abs(value) < _ZERO:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Evidence:
    """Records of a run with the questions that rules ask about them.

    Every method that returns a number returns NaN without enough records. A comparison
    with NaN is false, so that a rule finds nothing then.
    """

    def __init__(
        self,
        records: list[Record],
        settings: dict[str, Any],
        evaluations: Iterable[dict[str, Any]] = (),
    ) -> None:
        """Takes what is known of a run.

        Args:
          records: as in metrics.jsonl, oldest first.
          settings: fields of the config by their dotted names; may lack any.
          evaluations: as in evaluations.jsonl.
        """
        self.records, self.settings = records, settings
        self.evaluations = list(evaluations)
        self._series: dict[str, list[float]] = {}

    def field(self, name: str) -> str:
        """Returns a field of the config with its value, for a cure."""
        return field(name, self.settings)

    def setting(self, name: str) -> float:
        """Returns a number in the config."""
        value = self.settings.get(name)
        return float(value) if files.is_number(value) else math.nan

    @property
    def progress(self) -> float:
        """Share of the agent steps that are learned."""
        total = self.setting("total_agent_steps")
        return self.last("agent_steps") / total if total > 0 else math.nan

    @property
    def is_from_start(self) -> bool:
        """True if the records begin where the run began."""
        early = 0.05 * self.last("agent_steps")
        return bool(self.records) and _steps(self.records[0]) <= early

    def has(self, prefix: str) -> list[str]:
        """Returns the keys of the newest record that begin with `prefix`."""
        newest = self.records[-1] if self.records else {}
        return sorted(key for key in newest if key.startswith(prefix))

    def series(self, key: str) -> list[float]:
        """Returns the numbers of a key, of the records that have it."""
        if key not in self._series:
            numbers = [r[key] for r in self.records if files.is_number(r.get(key))]
            self._series[key] = numbers
        return self._series[key]

    def last(self, key: str) -> float:
        """Returns the newest value."""
        return next(reversed(self.series(key)), math.nan)

    def first(self, key: str) -> float:
        """Returns the median of the first 5 % of the values."""
        values = self.series(key)
        return median(values[: max(3, len(values) // 20)], len(values))

    def recent(self, key: str) -> float:
        """Returns the median of the last 10 % of the values."""
        values = self.series(key)
        return median(values[-max(5, len(values) // 10) :], len(values))

    def between(self, key: str, start: float, stop: float) -> float:
        """Returns the median of the values from one share of the records to another."""
        values = self.series(key)
        low, high = (round(share * len(values)) for share in (start, stop))
        return median(values[low:high], len(values))

    def recent_share(self, key: str, low: float, high: float = math.inf) -> float:
        """Returns the share of the last half of the values that are in [low, high]."""
        values = self.series(key)
        half = values[len(values) // 2 :]
        enough = len(values) >= _MIN_POINTS
        return sum(low <= v <= high for v in half) / len(half) if enough else math.nan

    @functools.cached_property
    def returns(self) -> list[tuple[int, float]]:
        """Pairs (index of the record, mean return), of means over enough games.

        None in a game of several players, where a policy meets itself: what one of
        them wins another may lose, however well they play.
        """
        one_task = "," not in str(self.settings.get("environment.id", ""))
        if one_task and self.has("episode/return_mean/"):
            return []
        return [
            (index, record["episode/return_mean"])
            for index, record in enumerate(self.records)
            if files.is_number(record.get("episode/return_mean"))
            and record.get("episode/count", _MIN_GAMES) >= _MIN_GAMES
        ]

    @functools.cached_property
    def now(self) -> float:
        """Newest mean return."""
        values = [value for _, value in self.returns]
        return median(values[-5:], len(values))

    @functools.cached_property
    def start(self) -> float:
        """Mean return of the random policy, or the first one of the run."""
        marks = [e for e in self.evaluations if e.get("policy") == "random"]
        if marks and files.is_number(marks[0].get("mean")):
            return float(marks[0]["mean"])
        values = [value for _, value in self.returns]
        return median(values[: max(3, len(values) // 50)], len(values))

    @functools.cached_property
    def top(self) -> float:
        """Return of the best game that any record has seen."""
        return max(self.series("episode/return_max"), default=math.nan)

    @functools.cached_property
    def spread(self) -> float:
        """Difference of the best and the worst of the last games."""
        return self.recent("episode/return_max") - self.recent("episode/return_min")

    @functools.cached_property
    def is_solved(self) -> bool:
        """True if the mean return is near that of the best game ever seen."""
        gained = self.now - self.start > _SOLVED * (self.top - self.start)
        almost = self.top - self.now <= _ALMOST * abs(self.top)
        return gained or almost

    @property
    def falls_short(self) -> bool:
        """True if the mean return is known, and not near that of the best game."""
        return not math.isnan(self.now) and not self.is_solved


def median(values: list[float], count: int = _MIN_POINTS) -> float:
    """Returns the median; NaN without values, or if they are of too few (`count`)."""
    enough = values and count >= _MIN_POINTS
    return float(statistics.median(values)) if enough else math.nan
