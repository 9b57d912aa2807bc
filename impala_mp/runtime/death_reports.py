"""Sentences on deaths: the user's line first, and the same error once a minute."""

import os
import re
import time
from collections.abc import Callable

from impala_mp.runtime import child_process

_EVERY_SECS = 60.0  # between two sentences on the same error
_PLACED = re.compile(r"(.*) \((.+:\d+), in (.+)\)", re.DOTALL)


class DeathReports:
    """Deaths that are restarted, each error as often as a reader needs."""

    def __init__(
        self,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` is called with each sentence."""
        self._report, self._clock = report, clock
        # Of each error: when it was reported, and how often it came since.
        self._known: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, child: child_process.ChildProcess, wait_secs: float) -> None:
        """Reports the last death of `child`, unless the same error is known.

        Args:
          wait_secs: until its restart.
        """
        if not child.error or child.error[0] == "(":  # a place without an error
            self._report(
                f"{child.title} {child.reason}; restart in {wait_secs:.1f} s."
                f" See {child.log}."
            )
            return
        now = self._clock()
        reported, count = self._known.get(child.signature, (-_EVERY_SECS, 0))
        if count and now - reported < _EVERY_SECS:
            self._known[child.signature] = (reported, count + 1)
            return
        self._known[child.signature] = (now, 1)
        times = f" It came {count} times since the last report." if count > 1 else ""
        self._report(f"{first_line(child)}; restart in {wait_secs:.1f} s.{times}")


def first_line(child: child_process.ChildProcess) -> str:
    """Returns `FILE:LINE in FUNCTION: ERROR (PROCESS, step N; LOG)`."""
    found = _PLACED.fullmatch(child.error)
    error, place, function = found.groups() if found else (child.error, "", "")
    where = f"{_short(place)} in {function}: " if found else ""
    step = f", step {child.steps:,}" if child.seat.role == "actor" else ""
    log = os.path.join("logs", os.path.basename(child.log))
    return f"{where}{error} ({child.name}{step}; {log})"


def _short(place: str) -> str:
    """Returns a path relative to the current folder if it is below."""
    try:
        relative = os.path.relpath(place)
    except FileNotFoundError:  # the current folder was deleted
        return place
    return place if relative.startswith("..") else relative
