"""Counts of the discrete actions in learned batches."""

from typing import Any

import numpy as np

from impala_mp.storage import histogram

MAX_ACTIONS = 32  # more are not counted
HISTOGRAM = "policy/actions"  # in the run's files
NAMES = tuple(f"policy/action_{i}" for i in range(MAX_ACTIONS))  # in the record


class ActionCounts:
    """Counts of the actions of all transitions learned since the last record."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Resets the counts; called after each record."""
        self._counts = np.zeros(MAX_ACTIONS, np.int64)

    def add(self, actions: Any, acts: Any = ()) -> None:
        """Adds actions int64 [T, N]; leaves out any other kind of action.

        Args:
          acts: bool [T+1, B], False where an action was ignored; (): none was.
        """
        if not isinstance(actions, np.ndarray) or actions.ndim != 2:
            return
        if isinstance(acts, np.ndarray):
            actions = actions[acts[: len(actions), : actions.shape[1]]]
        if actions.dtype.kind in "iu" and actions.size:
            counts = np.bincount(actions.ravel(), minlength=MAX_ACTIONS)
            self._counts += counts[:MAX_ACTIONS]

    def metrics(self) -> dict[str, float]:
        """Returns the counts by action."""
        return dict(zip(NAMES, map(float, self._counts), strict=True))


def take(record: dict[str, float], num_actions: int) -> list[int]:
    """Removes the counts from `record`; returns those of `num_actions`.

    Returns [] if nothing was learned, or if there are too many actions to count.
    """
    counts = [int(record.pop(name)) for name in NAMES]
    return counts[:num_actions] if any(counts) and num_actions <= MAX_ACTIONS else []


def raw(counts: list[int]) -> histogram.RawHistogram:
    """Makes a histogram with one bucket per action."""
    actions = np.arange(len(counts))
    return histogram.RawHistogram(
        min=-0.5,
        max=len(counts) - 0.5,
        num=sum(counts),
        sum=float(actions @ counts),
        sum_squares=float(actions**2 @ counts),
        bucket_limits=(actions + 0.5).tolist(),
        bucket_counts=counts,
    )
