"""Trajectory accounting: committed = learned + discarded + in flight, exactly.

With replay.reuse, `learned` counts the trajectories that have entered the replay.
Counts start with the first run in a workdir, and a checkpoint keeps them. For a resumed
run, trajectories that were committed but not learned by then count as discarded.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp.transport import control_block, trajectory_ring
from impala_mp.workers import batcher


class Accounts:
    """Trajectory counts of one learner."""

    def __init__(
        self,
        rings: trajectory_ring.TrajectoryRings,
        numbers: Sequence[int],
        the_batcher: batcher.Batcher,
        books: control_block.Counters,
        slot_size: int,
    ) -> None:
        """`numbers`: of the rings that it reads; `slot_size`: trajectories per slot."""
        self._rings, self._batcher, self._books = rings, the_batcher, books
        self._numbers = list(numbers)
        self._slot_size = slot_size
        self._num_learned = 0  # trajectories of this incarnation
        self._saved: dict[str, int] = {}

    def learned(self, count: int) -> None:
        """Counts fresh trajectories that were learned or, with an intake, inserted."""
        self._books.add("learned", count)
        self._num_learned += count
        self._saved = {}

    def changed(self) -> None:
        """Lets the next counts be new ones, although no update was made."""
        self._saved = {}

    def saved(self, counts: dict[str, int]) -> None:
        """Fixes the counts of this update to those in its checkpoint.

        Until the next update `counts` returns them, so that a run resumed from the
        checkpoint never reports smaller ones.
        """
        self._saved = counts

    def counts(self) -> dict[str, int]:
        """Returns the number of trajectories by outcome.

        In flight are those in the rings, and those taken from the rings but not yet
        learned.

        Raises:
          RuntimeError: the sum is wrong.
        """
        if self._saved:
            return self._saved
        heads, tails = self._own(self._rings.heads()), self._own(self._rings.tails())
        staged = self._batcher.num_released - self._num_learned
        counts = {
            "committed": self._since_the_first_run(heads),
            "learned": self._books.get("learned"),
            "discarded": self._books.get("discarded"),
            "in_flight": int((heads - tails).sum()) * self._slot_size + staged,
        }
        if counts["committed"] != sum(list(counts.values())[1:]):
            raise RuntimeError(f"trajectories are lost or counted twice: {counts}.")
        return counts

    def discard_lost(self) -> None:
        """Discards what an earlier incarnation took but did not learn; at its start."""
        taken = self._since_the_first_run(self._own(self._rings.tails()))
        self._books.set("discarded", taken - self._books.get("learned"))

    def _own(self, words: np.ndarray) -> np.ndarray:
        """Returns those of the rings that this learner reads."""
        return words[self._numbers]

    def _since_the_first_run(self, slots: Any) -> int:
        """Returns trajectories of all runs; `slots` are those of this run, by ring."""
        return self._books.get("carried_over") + int(slots.sum()) * self._slot_size


class SharedAccounts(Accounts):
    """Accounts of the first of several ranks: it reports those of all."""

    agreed: dict[str, int] = {}  # of all ranks, before the next update

    def own(self) -> dict[str, int]:
        """Returns the number of this rank's trajectories by outcome."""
        return super().counts()

    def counts(self) -> dict[str, int]:
        """Returns the number of all ranks' trajectories by outcome."""
        return self.agreed

    def saved(self, counts: dict[str, int]) -> None:
        """Leaves `counts` as they are: they are fixed until the next update."""


def carry_over(books: control_block.Counters, counts: dict[str, int]) -> None:
    """Restores a checkpoint's `counts`; the supervisor calls it before any learner.

    `books` are those of the first rank, which takes over the trajectories of all.
    """
    books.set("carried_over", counts.get("committed", 0))
    books.set("learned", counts.get("learned", 0))
