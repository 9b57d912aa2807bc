"""Rounds of a population: reports of its members up, orders to copy down.

A member is a policy. The process that learns it writes its report: the rounds that it
has completed, its score, and the newest order that its saved state has obeyed. The
supervisor writes its order: a number, which is that of a round, and the member to copy.
An order stays until the next one, so a learner that is killed finds it again.
"""

from typing import NamedTuple

import numpy as np

from impala_mp import specs
from impala_mp.transport import barrier, shared_memory

_LINE = 8  # int64 words of a cache line
_ROUND, _OBEYED = 0, 1  # words of a report
_NUMBER, _SOURCE = 0, 1  # words of an order
_NOT_RESTORED = -1  # a round: the member's learner has not begun
_FINISHED = 2**62  # a round: the member learns no more


class Report(NamedTuple):
    """State of one member."""

    round: int  # the last one that it has completed
    score: float  # mean return; NaN if it has too few games
    obeyed: int  # number of its newest order that is saved; 0 if there is none
    restored: bool  # whether the rest counts
    finished: bool  # whether it learns no more


class Order(NamedTuple):
    """Order to copy another member; number 0 is none."""

    number: int
    source: int


class PopulationBlock(shared_memory.InMemory):
    """A report and an order of each member."""

    def __init__(
        self,
        num_members: int,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        """Allocates the block, without orders."""
        spec = {
            "reports": specs.array_spec((num_members, _LINE), np.int64),
            "scores": specs.array_spec((num_members, _LINE), np.float64),
            "orders": specs.array_spec((num_members, _LINE), np.int64),
        }
        self._attach(shared_memory.SharedArrays(spec, file))
        self._reports[:, _ROUND] = _NOT_RESTORED
        self._reports[:, _OBEYED] = 0
        self._orders[:] = 0

    def _attach(self, memory: shared_memory.SharedArrays) -> None:
        self._memory = memory
        self._reports = memory.arrays["reports"]
        self._scores = memory.arrays["scores"]
        self._orders = memory.arrays["orders"]
        self._barrier = barrier.make_barrier()

    # The learner's side.

    def write_report(
        self, member: int, rounds: int, score: float, finished: bool = False
    ) -> None:
        """Announces the rounds that a member has completed, and its score."""
        self._scores[member, 0] = score
        self._barrier()
        self._reports[member, _ROUND] = _FINISHED if finished else rounds

    def acknowledge(self, member: int, number: int) -> None:
        """Announces that the saved state of a member has obeyed an order."""
        self._reports[member, _OBEYED] = number

    def order(self, member: int) -> Order:
        """Returns the newest order to a member."""
        number = int(self._orders[member, _NUMBER])
        self._barrier()
        return Order(number, int(self._orders[member, _SOURCE]))

    # The supervisor's side.

    def reports(self) -> list[Report]:
        """Returns the report of each member."""
        found = []
        for words, score in zip(self._reports, self._scores, strict=True):
            rounds = int(words[_ROUND])
            self._barrier()
            found.append(
                Report(
                    rounds,
                    float(score[0]),
                    int(words[_OBEYED]),
                    rounds != _NOT_RESTORED,
                    rounds == _FINISHED,
                )
            )
        return found

    def give_order(self, member: int, number: int, source: int) -> None:
        """Orders a member, which has obeyed the order before, to copy another one."""
        self._orders[member, _SOURCE] = source
        self._barrier()
        self._orders[member, _NUMBER] = number
