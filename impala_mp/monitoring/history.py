"""Records of a run in memory: its curve, its best return, its recent speed."""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

from impala_mp.monitoring import thinned_records
from impala_mp.storage import files, metrics

Record = dict[str, float]

RETURN = "episode/return_mean"
EVALUATION = "evaluation/return_mean"
_LIMIT = 1000  # points; more are merged in pairs
_RECENT_RECORDS = 1000  # whose counters are kept unmerged
_RECENT_SECS = 60.0  # the speed is a mean over these
_GAMES = 100  # a mean over fewer games is no best one
_NAMES = ("mean", "low", "high", "std", "episodes")


class Best(NamedTuple):
    """Best return of a run."""

    value: float
    agent_steps: float
    is_evaluation: bool


class History:
    """Bounded list of points, each of as many records of a run, oldest first."""

    def __init__(self) -> None:
        self.last: Record = {}
        self.best: Best | None = None
        self.evaluation: Record = {}  # the newest one: agent_steps and _NAMES
        self._points = thinned_records.ThinnedRecords(_LIMIT)
        self._recent = collections.deque[Record](maxlen=_RECENT_RECORDS)  # counters

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a record; records that it does not follow are dropped."""
        numbers = {k: v for k, v in record.items() if files.is_number(v)}
        steps = numbers["agent_steps"]
        # The first record of a restarted learner repeats that of its checkpoint.
        self._points.drop_beyond(steps - 1)
        self._points.add(numbers)
        while self._recent and self._recent[-1]["agent_steps"] > steps - 1:
            self._recent.pop()
        self._recent.append({k: numbers[k] for k in metrics.COUNTERS if k in numbers})
        self.last = numbers
        self._compare(numbers)

    def _compare(self, record: Record) -> None:
        found = {
            name: record[f"evaluation/return_{name}"]
            for name in _NAMES
            if f"evaluation/return_{name}" in record
        }
        steps = record["agent_steps"]
        if "mean" in found:
            before = {k: v for k, v in self.evaluation.items() if k != "agent_steps"}
            if found != before:  # the reporter repeats the newest one
                self.evaluation = {**found, "agent_steps": steps}
                self._offer(Best(found["mean"], steps, True))
        elif RETURN in record and record.get("episode/count", _GAMES) >= _GAMES:
            self._offer(Best(record[RETURN], steps, False))

    def _offer(self, new: Best) -> None:
        """Takes a better return; an evaluation is better than any mean of games."""
        old = self.best
        if old is None or (new.is_evaluation, new.value) > (
            old.is_evaluation,
            old.value,
        ):
            self.best = new

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Returns agent steps and values of the records that have `key`."""
        points = list(self._points.records)  # another thread may add one
        found = [(r["agent_steps"], r[key]) for r in points if key in r]
        return [x for x, _ in found], [y for _, y in found]

    def rate(self, counter: str) -> float | None:
        """Returns the growth of a counter a second, over the last minute."""
        recent = list(self._recent)  # another thread may add one
        timed = [r for r in recent if "time_secs" in r and counter in r]
        if len(timed) < 2:
            return None
        last = timed[-1]
        start = last["time_secs"] - _RECENT_SECS
        first = next(r for r in timed if r["time_secs"] >= start)
        first = timed[-2] if first is last else first
        secs = last["time_secs"] - first["time_secs"]
        return (last[counter] - first[counter]) / secs if secs > 0 else None

    def speed(self) -> float | None:
        """Returns agent steps a second, over the last minute."""
        known = self.rate("agent_steps")
        if known is None:
            return self.last.get("throughput/agent_steps_per_sec")
        return known

    def secs_left(self, total_agent_steps: float) -> float | None:
        """Returns the seconds until the end at the recent speed; None: unknown."""
        speed, steps = self.speed(), self.last.get("agent_steps")
        if steps is None or not speed or speed <= 0:
            return None
        return max(0.0, total_agent_steps - steps) / speed
