"""Agreement of the learner's ranks before each update: all make it, or none does.

Each rank brings words, and gets those of all. So every rank comes to the same decision:
whether all have a batch, whether the run ends, and with which live hyperparameters the
next update is made. The words also show whether the ranks are still alike.
"""

from typing import NamedTuple

import torch

from impala_mp.algorithms import base
from impala_mp.transport import ranks

_CHECKED = 20  # updates between two checksums of the parameters
_BITS = 48  # of a checksum: float64 holds it exactly


class Mismatch(Exception):
    """A rank has other parameters, or another number of updates, than the others."""


class Words(NamedTuple):
    """Words of one rank; all are float64."""

    is_ready: float  # 1: it has a batch
    is_stopping: float  # 1: it was asked to stop
    is_over: float  # 1, by rank 0: the run ends here
    updates: float
    checksum: float  # of its parameters, at every 20th update; else 0
    num_games: float  # that ended in its last batch
    mixed_unrolls: float
    waited_secs: float  # without its share of a batch
    committed: float  # trajectories of its actors, as in `accounting`
    learned: float
    discarded: float
    in_flight: float
    live: tuple[float, ...]  # by rank 0


class Agreed(NamedTuple):
    """Words of all ranks."""

    ranks: tuple[Words, ...]

    @property
    def goes(self) -> bool:
        """True if all ranks have a batch."""
        return all(each.is_ready for each in self.ranks)

    @property
    def stops(self) -> bool:
        """True if a rank was asked to stop."""
        return any(each.is_stopping for each in self.ranks)

    @property
    def is_over(self) -> bool:
        """True if no update follows."""
        return bool(self.ranks[0].is_over)

    @property
    def live(self) -> base.Live:
        """Hyperparameters of the next update."""
        return base.Live(*self.ranks[0].live)

    @property
    def num_games(self) -> int:
        """Most games of a rank."""
        return int(max(each.num_games for each in self.ranks))

    def counts(self) -> dict[str, int]:
        """Returns the number of trajectories of all ranks, by outcome."""
        names = ("committed", "learned", "discarded", "in_flight")
        return {n: int(sum(getattr(w, n) for w in self.ranks)) for n in names}

    def total(self, name: str) -> float:
        """Returns the sum of a word."""
        return float(sum(getattr(each, name) for each in self.ranks))

    def check(self) -> None:
        """Checks that all ranks are alike.

        Raises:
          Mismatch: one is not.
        """
        first = self.ranks[0]
        for rank, other in enumerate(self.ranks):
            if other.updates != first.updates:
                raise Mismatch(
                    f"rank {rank} of the learner has made {other.updates:.0f} updates,"
                    f" and rank 0 {first.updates:.0f}"
                )
            if other.checksum != first.checksum:
                raise Mismatch(
                    f"rank {rank} of the learner has other parameters than rank 0"
                    f" after update {first.updates:.0f}"
                )


def agree(group: ranks.Group, words: Words) -> Agreed:
    """Brings the words of this rank; returns those of all."""
    *numbers, live = words
    rows = group.exchange([*numbers, *live])
    found = [Words(*row[: len(numbers)], tuple(row[len(numbers) :])) for row in rows]
    return Agreed(tuple(found))


def checksum(flat: torch.Tensor, updates: int) -> float:
    """Returns the sum of the words of parameters, or 0 where none is due."""
    if updates % _CHECKED:
        return 0.0
    return float(int(flat.view(torch.int64).sum()) & (2**_BITS - 1))
