"""Names of the learner's metrics, their means over updates, times of records."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from impala_mp.algorithms import replay
from impala_mp.config import derived, live_hyperparameters
from impala_mp.transport import record_ring
from impala_mp.workers import (
    action_counts,
    batcher,
    episode_statistics,
    intake,
    league,
    learner,
    policy_lag,
)

_RECORDS = 200  # of a run, at least
_RESERVED = 16  # rows of the ring of records

PHASES = ("wait", "batch", "update", "publish")

PROGRESS = ("agent_steps", "updates", "time_secs")
NAMES = (
    *PROGRESS,
    # Progress at the start of this incarnation of the learner, and its number.
    *(f"restored/{name}" for name in PROGRESS),
    "restored/incarnation",
    "loss/learning_rate",
    "episode/return_mean",
    "episode/return_min",
    "episode/return_max",
    "episode/length_mean",
    "episode/count",
    *policy_lag.STATISTICS,
    "lag/age_mean_secs",
    "lag/age_max_secs",
    *policy_lag.NAMES,
    *action_counts.NAMES,
    "health/drift",
    "health/drift_alarms",
    "health/mixed_unrolls",
    *(f"time/learner_{phase}" for phase in PHASES),
    "health/learned",
    "health/discarded",
    "health/committed",
    "health/in_flight",
    "health/updates_skipped",
    "memory/device_mib",
    "health/checkpoint_update",
    *(f"live/{name}" for name in live_hyperparameters.NAMES),
)


OF_RANKS = (
    "ranks/waited_share",  # of the time, of the rank that waits most for its batches
    "ranks/last",  # its number
)


def record_names(config: Any, players: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of all numbers in the learner's record.

    `players` are those of the environment's spec.
    """
    replayed = replay.METRICS if derived.has_replay(config) else ()
    replayed += intake.METRICS if config.replay.reuse else ()
    replayed += league.METRICS if derived.has_league(config) else ()
    suffixes = derived.episode_suffixes(config.environment, players)
    by_task = episode_statistics.task_names(suffixes)
    numbers = episode_statistics.number_names(suffixes)
    replayed += OF_RANKS if config.learner.ranks > 1 else ()
    return (*NAMES, *by_task, *numbers, *replayed, *learner.metric_names(config))


class UpdateMeans:
    """Metrics, policy lag and seconds of the updates since the last record."""

    def __init__(self, names: tuple[str, ...], device: str) -> None:
        """`names` are those of `learner.metric_names`."""
        self._names = names
        self._sums = torch.zeros(len(names), device=device)
        share = names.index(learner.SKIPPED_SHARE)
        # Number of skipped updates since the last record, on the device: float32 [1].
        self.skipped = self._sums[share : share + 1]
        self.skipped_before = 0  # until then
        self.device = self._sums.device
        self.num_updates = 0
        self.lags = policy_lag.Lags()
        self.actions = action_counts.ActionCounts()
        self.ages: list[np.ndarray] = []  # nanoseconds, of fresh trajectories
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._elsewhere = 0.0

    def timed(self, phase: str, function: Callable[..., Any], *args: Any) -> Any:
        """Calls `function` and counts its seconds to `phase`, one of PHASES."""
        start = time.perf_counter()
        result = function(*args)
        self._seconds[phase] += time.perf_counter() - start
        return result

    def waited(self, secs: float) -> None:
        """Counts time without a batch."""
        self._seconds["wait"] += secs

    def was_elsewhere(self, secs: float) -> None:
        """Counts time in which the process learned another policy."""
        self._elsewhere += secs

    def see(self, newest: int, batch: batcher.Batch) -> int:
        """Counts the lag and age of fresh trajectories.

        Returns:
          The number of unrolls in which more than one version acted; 0 if actors and
          server keep their promise.
        """
        committed = batch.header.committed_ns[: batch.num_fresh]
        self.ages.append(time.monotonic_ns() - committed)
        if isinstance(batch.action, np.ndarray):
            self.actions.add(batch.action[:, : batch.num_fresh], batch.acts)
        return self.lags.add(newest, batch.parameter_version[:, : batch.num_fresh])

    def add(self, metrics: torch.Tensor) -> None:
        """Adds the metrics of one update; does not wait for the device."""
        self._sums += metrics
        self.num_updates += 1

    @property
    def num_skipped(self) -> int:
        """Number of skipped updates of the whole run. Waits for the device."""
        return self.skipped_before + round(self.skipped.item())

    def restore(self, skipped_before: int) -> None:
        """Continues a count of skipped updates; `skipped` has its own part already."""
        self.skipped_before = skipped_before + round(self.skipped.item())
        self.skipped.zero_()

    def take(self) -> dict[str, float]:
        """Returns the means and starts the next record. Waits for the device."""
        sums = self._sums.tolist()
        count = self.num_updates or math.nan
        ages = np.concatenate(self.ages) * 1e-9 if self.ages else np.array([math.nan])
        elapsed = max(1e-9, sum(self._seconds.values()) + self._elsewhere)
        means = {
            **dict(zip(self._names, (s / count for s in sums), strict=True)),
            **self.lags.metrics(),
            **self.actions.metrics(),
            "lag/age_mean_secs": float(ages.mean()),
            "lag/age_max_secs": float(ages.max()),
            **{f"time/learner_{k}": v / elapsed for k, v in self._seconds.items()},
        }
        self.skipped_before = self.num_skipped
        self._seconds, self._elsewhere = dict.fromkeys(PHASES, 0.0), 0.0
        self._sums.zero_()
        self.num_updates = 0
        self.lags.clear()
        self.actions.clear()
        self.ages = []
        return means


class RecordTimes:
    """Times of a learner's records: by time, and by progress."""

    def __init__(self, config: Any, ring: record_ring.RecordRing) -> None:
        self._interval_secs = config.logging.interval_secs
        self._interval = max(1, config.total_agent_steps // _RECORDS)
        self._ring = ring
        self._next = 0  # agent steps
        self._written = time.monotonic()

    def is_due(self, agent_steps: int) -> bool:
        """Returns whether a record is due.

        The last rows of the ring are left to records that cannot wait.
        """
        if agent_steps >= self._next:
            return self._ring.free > _RESERVED
        elapsed = time.monotonic() - self._written
        return elapsed >= self._interval_secs and self._ring.free > 2

    def written(self, agent_steps: int) -> None:
        """Counts from the record that was just written."""
        self._written = time.monotonic()
        self._next = (agent_steps // self._interval + 1) * self._interval

    def hurry(self) -> None:
        """Makes a record due at once."""
        self._next = 0
