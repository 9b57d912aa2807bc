"""What became of each trajectory: committed = learned + discarded + in flight, exactly.

Counted since the first run in a workdir: a checkpoint keeps the counts, and what a run
had committed and not learned by then is discarded for the run that goes on from it.
"""

from typing import Any

from impala_mp.transport import control_block, trajectory_ring
from impala_mp.workers import batcher


class Accounts:
    """The books of one learner."""

    def __init__(
        self,
        rings: trajectory_ring.TrajectoryRings,
        the_batcher: batcher.Batcher,
        row: control_block.ProcessRow,
        slot_size: int,
    ) -> None:
        """`slot_size` is of the rings, in trajectories."""
        self._rings, self._batcher, self._row = rings, the_batcher, row
        self._slot_size = slot_size
        self._num_learned = 0  # batches of this incarnation
        self._saved: dict[str, int] = {}

    def learned_one(self) -> None:
        """To be told of every batch."""
        self._row.add("learned", self._batcher.num_fresh)
        self._num_learned += 1
        self._saved = {}

    def saved(self, counts: dict[str, int]) -> None:
        """`counts` are in a checkpoint of what has been learned so far.

        No others are told of that update from here on: what goes on from there would
        fall behind them.
        """
        self._saved = counts

    def counts(self) -> dict[str, int]:
        """Trajectories by what became of them.

        In flight is what lies in the rings, and what has been taken from them and not
        yet learned.

        Raises:
          RuntimeError: the sum is wrong.
        """
        if self._saved:
            return self._saved
        heads, tails = self._rings.heads(), self._rings.tails()
        staged = self._batcher.num_taken - self._num_learned
        counts = {
            "committed": self._since_the_first_run(heads),
            "learned": self._row.get("learned"),
            "discarded": self._row.get("discarded"),
            "in_flight": int((heads - tails).sum()) * self._slot_size
            + staged * self._batcher.num_fresh,
        }
        if counts["committed"] != sum(list(counts.values())[1:]):
            raise RuntimeError(f"trajectories are lost or counted twice: {counts}")
        return counts

    def discard_lost(self) -> None:
        """What an earlier incarnation had taken and not learned. For a new learner."""
        taken = self._since_the_first_run(self._rings.tails())
        self._row.set("discarded", taken - self._row.get("learned"))

    def _since_the_first_run(self, slots: Any) -> int:
        """Trajectories, where `slots` are of this run, by ring."""
        return self._row.get("carried_over") + int(slots.sum()) * self._slot_size


def carry_over(row: control_block.ProcessRow, counts: dict[str, int]) -> None:
    """Goes on from a checkpoint's `counts`. The supervisor's, before any learner."""
    row.set("carried_over", counts.get("committed", 0))
    row.set("learned", counts.get("learned", 0))
