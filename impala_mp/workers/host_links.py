"""Links to one actor host, one for each policy: a call has a question of each."""

import itertools
import math
from collections.abc import Sequence

from impala_mp.transport import host_books, host_messages
from impala_mp.workers import host_link

_BEAT_SECS = 1.0  # between questions to a host all of whose rings here are full
_SHORT_SECS = 0.02  # that a host waits if one of them is full, which may change


class HostLinks:
    """All links to the host of one seat."""

    def __init__(self, links: Sequence[host_link.HostLink]) -> None:
        self._links = links
        self._asked = -math.inf  # monotonic

    @property
    def state(self) -> str:
        return self._links[0].state

    @property
    def counters(self) -> dict[str, int]:
        """Numbers of the host's actors."""
        return self._links[0].counters

    @property
    def incarnation(self) -> int:
        return self._links[0].books.incarnation

    @property
    def room(self) -> int:
        """Slots that fit here, in the fullest ring."""
        return min(link.room for link in self._links)

    @property
    def arrived(self) -> int:
        """Slots, since the run began."""
        return sum(link.ring.head for link in self._links)

    @property
    def drained(self) -> bool:
        """True if the host has ended and all its slots have arrived."""
        return all(link.drained for link in self._links)

    @property
    def lag(self) -> int:
        """Versions that the host is behind, of the policy where it is most."""
        return max(link.lag for link in self._links)

    def ages(self) -> list[float]:
        """Returns the seconds between commit and arrival, of the newest slots."""
        return list(itertools.chain(*(link.ages for link in self._links)))

    def counts(self) -> host_books.Counts:
        """Returns the slots of all policies.

        Raises:
          RuntimeError: a sum is wrong.
        """
        each = [link.books.counts() for link in self._links]
        return host_books.Counts(*map(sum, zip(*each, strict=True)))

    def question(self, now: float, stop: bool = False) -> host_messages.Asked | None:
        """Returns the next question of each policy, or None.

        There is none while all rings are full, but for a beat; so the host waits.
        """
        full = not any(link.room for link in self._links)
        if full and now - self._asked < _BEAT_SECS:
            return None
        self._asked = now
        limit = host_link.POLL_SECS if self.room else _SHORT_SECS
        asked = [link.question(now, stop) for link in self._links]
        return [
            (question._replace(poll_secs=min(question.poll_secs, limit)), frame)
            for question, frame in asked
        ]

    def lost_contact(self) -> None:
        """Notes that a call failed: the host may be another one next time."""
        for link in self._links:
            link.lost_contact()

    def accept(
        self, replies: Sequence[host_messages.Reply], asked: float, now: float
    ) -> None:
        """Takes in the reply for each policy; see `HostLink.accept`.

        Raises:
          BadInput: the host cannot take part.
          Restart: its process must be restarted.
        """
        if len(replies) != len(self._links):
            raise host_link.Restart(
                f"answered for {len(replies)} policies, and {len(self._links)} play"
            )
        for link, reply in zip(self._links, replies, strict=True):
            link.accept(reply, asked, now)
