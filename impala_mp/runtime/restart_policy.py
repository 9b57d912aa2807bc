"""Restart policy of one process: how long to wait after a death, or when to give up.

A process may die `max_restarts` times within `window_secs`, and as often in a row with
little finished in each life, however long the lives are. It may fail to start
`max_failed_starts` times in a row if it has never run, and may die
`max_deaths_without_progress` times in a row before it finishes anything
(config.health). Failed starts of a process that has run count as deaths: what it needs
may be away for minutes. The wait doubles with each short life in a row. The window
leaves out the waits: otherwise a loop of short lives with long waits would never spend
the budget. The policy reads no clock and starts no process.
"""

import random
from typing import Any, NamedTuple

_SETTLED_SECS = 1.0  # a process that lived longer than this is no crash loop
_ENOUGH = 10  # unrolls, updates ... of a life that is no crash loop
_MAX_DOUBLINGS = 60  # beyond any back-off, and within a float
_UNITS = {
    **{"actor": "unroll", "learner": "update", "evaluator": "evaluation"},
    **{"host": "slot", "receiver": "slot"},
}


class Wait(NamedTuple):
    """Restart after so long."""

    secs: float


class GiveUp(NamedTuple):
    """No restart: the budget is spent."""

    reason: str


Verdict = Wait | GiveUp


class RestartPolicy:
    """Deaths of one process, and the decision after each."""

    def __init__(self, role: str, health: Any, jitter: random.Random) -> None:
        """`health` is config.health; `jitter` spreads restarts over time."""
        self._role, self._health, self._jitter = role, health, jitter
        self.deaths: list[float] = []  # times without waits, within the window
        self.failed_starts = 0  # in a row
        self.short_lives = 0  # in a row
        self.fruitless_lives = 0  # in a row, failed starts left out
        self._poor_lives = 0  # in a row, with fewer than _ENOUGH finished
        self._has_run = False  # in any life
        self._waited_secs = 0.0

    def after_death(
        self, now: float, lived_secs: float, was_running: bool, num_finished: int
    ) -> Verdict:
        """Records a death and decides.

        Args:
          now: seconds on any clock that only runs forward.
          lived_secs: 0 where no process could be started.
          was_running: whether it had done anything for the run.
          num_finished: unrolls, updates or the like that it had finished.
        """
        window = self._health.window_secs
        now -= self._waited_secs
        self.deaths = [t for t in self.deaths if now - t < window] + [now]
        settled = was_running and lived_secs > _SETTLED_SECS
        self._has_run = self._has_run or was_running
        self.short_lives = 1 if settled else self.short_lives + 1
        self.failed_starts = 0 if was_running else self.failed_starts + 1
        self.fruitless_lives = 0 if num_finished else self.fruitless_lives + was_running
        self._poor_lives = 0 if num_finished >= _ENOUGH else self._poor_lives + 1
        spent = self._spent()
        if spent:
            return GiveUp(spent)
        wait = self._backoff_secs()
        self._waited_secs += wait
        return Wait(wait)

    def _spent(self) -> str:
        """Returns which budget is spent; "" if none."""
        allowed = self._health.max_restarts[self._role]
        starts = max(1, self._health.max_failed_starts)
        if self.failed_starts >= starts and not self._has_run:
            return f"failed to start {self.failed_starts} times in a row"
        if len(self.deaths) > allowed:
            return (
                f"died {len(self.deaths)} times within"
                f" {self._health.window_secs:.0f} s"
                f" (config.health.max_restarts.{self._role}={allowed})"
            )
        unit = _UNITS.get(self._role, "batch of requests")
        if self._poor_lives > allowed:
            return (
                f"died {self._poor_lives} times in a row, each time before a"
                f" {_ENOUGH}th {unit}"
                f" (config.health.max_restarts.{self._role}={allowed})"
            )
        limit = self._health.max_deaths_without_progress
        if self.fruitless_lives >= limit:
            return (
                f"died {self.fruitless_lives} times in a row without a finished {unit}"
                f" (config.health.max_deaths_without_progress={limit})"
            )
        return ""

    def _backoff_secs(self) -> float:
        doublings = min(self.short_lives - 1, _MAX_DOUBLINGS)
        wait = self._health.backoff_secs * 2.0**doublings
        wait = min(self._health.max_backoff_secs, wait)
        return wait * self._jitter.uniform(0.5, 1.0)
