"""What the learner publishes with every record, under these names."""

from impala_mp import hyperparameters, lag_histogram

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
    *lag_histogram.STATISTICS,
    "lag/age_mean_secs",
    "lag/age_max_secs",
    *lag_histogram.NAMES,
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
    *(f"live/{name}" for name in hyperparameters.NAMES),
)
