"""Accounts of one actor host and policy, in shared memory that outlives the receiver.

The receiver writes them. Two copies of the five words take turns, and one word names
the one that counts, so an incarnation begins at once or not at all. Slots are counted:

    reported = arrived + on the way + lost

`reported` are the slots that the host has announced, in all of its incarnations.
`arrived` is the head of its ring here. `lost` is booked where an incarnation ends.
"""

from typing import NamedTuple

import numpy as np

from impala_mp.transport import barrier, trajectory_ring

WORDS = 16  # int64 a host
_WHICH, _COPIES, _SIZE = 0, 6, 5  # words: which copy counts; the copies follow
_INCARNATION, _BASE, _REPORTED, _PAST, _LOST = range(5)  # words of a copy
_ATTEMPTS = 100  # reads, until no word changes in between


class Counts(NamedTuple):
    """Slots of one host since the run began."""

    reported: int
    arrived: int
    on_the_way: int
    lost: int


class HostBooks:
    """Books of one host and policy."""

    def __init__(self, words: np.ndarray, ring: trajectory_ring.TrajectoryRing) -> None:
        """`words` is int64 [WORDS]; `ring` is that of the host here."""
        self._words, self._ring = words.data.cast("B").cast("q"), ring
        self._barrier = barrier.make_barrier()

    def _get(self, word: int) -> int:
        return self._words[_COPIES + _SIZE * self._words[_WHICH] + word]

    @property
    def incarnation(self) -> int:
        """Newest incarnation that was given out, from 1; 0 before the first."""
        return self._get(_INCARNATION)

    @property
    def next(self) -> int:
        """Number of the next slot that is to arrive from this incarnation."""
        return self._ring.head - self._get(_BASE)

    @property
    def on_the_way(self) -> int:
        """Slots that this incarnation has announced and that have not arrived."""
        return self._get(_REPORTED) - self.next

    def report(self, slots: int) -> None:
        """Notes the slots that this incarnation has announced, before they arrive."""
        own = _COPIES + _SIZE * self._words[_WHICH]
        self._words[own + _REPORTED] = max(slots, self._words[own + _REPORTED])
        self._barrier()

    def begin(self) -> int:
        """Ends the incarnation and books what is lost; returns the next one."""
        other = 1 - self._words[_WHICH]
        reported, head = self._get(_REPORTED), self._ring.head
        lost = self._get(_LOST) + self.on_the_way
        copy = (self.incarnation + 1, head, 0, self._get(_PAST) + reported, lost)
        for word, value in enumerate(copy):
            self._words[_COPIES + _SIZE * other + word] = value
        self._barrier()
        self._words[_WHICH] = other
        return self.incarnation

    def counts(self) -> Counts:
        """Returns the counts; any process may call it.

        Raises:
          RuntimeError: the sum is wrong.
        """
        for _ in range(_ATTEMPTS):
            words, head = list(self._words), self._ring.head
            self._barrier()
            if words == list(self._words) and head == self._ring.head:
                break
        start = _COPIES + _SIZE * words[_WHICH]
        _, base, reported, past, lost = words[start : start + _SIZE]
        found = Counts(past + reported, head, reported - (head - base), lost)
        if found.reported != sum(found[1:]) or min(found) < 0:
            raise RuntimeError(f"slots of a host are lost or counted twice: {found}.")
        return found
