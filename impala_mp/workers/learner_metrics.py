"""What the learner publishes with every record, under these names."""

from typing import Any

from impala_mp.algorithms import replay
from impala_mp.config import derived, live_hyperparameters
from impala_mp.workers import episode_statistics, learner, policy_lag

PHASES = ("wait", "batch", "update", "publish")

PROGRESS = ("agent_steps", "updates", "time_secs")
NAMES = (
    *PROGRESS,
    # Where this incarnation of the learner began, and which one it is.
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


def record_names(config: Any) -> tuple[str, ...]:
    """The numbers that the learner publishes."""
    replayed = replay.METRICS if config.replay.ratio else ()
    by_task = episode_statistics.task_names(derived.task_suffixes(config.environment))
    return (*NAMES, *by_task, *replayed, *learner.metric_names(config))
