"""Intake: the rate at which trajectories enter the replay and are learned from it.

With `replay.reuse` every trajectory goes from its ring into the replay, and every batch
is drawn from there. At each moment

    -reuse * slot < learned - reuse * (inserted - filled) <= batch

where `learned` counts the trajectories of all batches, `inserted` those that entered
the replay, and `filled` those of them that only brought it to `replay.start`. A replay
that is empty after a restart is filled again. With `reuse` inf nothing waits.
"""

import math
from typing import Any

from impala_mp.algorithms import replay


class Intake:
    """Counts of one learner, and what they allow next."""

    def __init__(self, settings: Any, the_replay: replay.Replay) -> None:
        """`settings` is config.replay."""
        self._reuse, self._start = settings.reuse, settings.start
        self._replay = the_replay
        self.learned = self.inserted = self.filled = 0  # trajectories

    @property
    def is_filling(self) -> bool:
        """True if the replay has too few trajectories to learn from."""
        return self._replay.size < max(1, self._start)

    @property
    def may_learn(self) -> bool:
        """True if the next batch is due."""
        if self.is_filling:
            return False
        return self._reuse == math.inf or self._excess() <= 0.0

    @property
    def may_insert(self) -> bool:
        """True if the next slot may enter; otherwise the rings hold the actors back."""
        return self._reuse == math.inf or self.is_filling or self._excess() > 0.0

    def _excess(self) -> float:
        """Returns learned - reuse * (inserted - filled)."""
        return float(self.learned - self._reuse * (self.inserted - self.filled))

    def insert(self, count: int) -> None:
        """Counts trajectories that are about to enter the replay."""
        if self.is_filling:
            self.filled += count
        self.inserted += count

    def learn(self, count: int) -> None:
        """Counts the trajectories of a batch."""
        self.learned += count

    def metrics(self) -> dict[str, float]:
        """Returns how often a trajectory is learned, on average."""
        counted = self.inserted - self.filled
        return {"replay/reuse": self.learned / counted if counted else math.nan}

    def state_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in _COUNTS}

    def load_state_dict(self, state: dict[str, int]) -> None:
        for name in _COUNTS:
            setattr(self, name, state[name])


_COUNTS = ("learned", "inserted", "filled")
METRICS = ("replay/reuse",)
