"""Signals once all is saved: what is left to do is cut short, and all is well."""

import signal
from collections.abc import Callable
from typing import Any

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class CutShort(BaseException):
    """What is left to do is not to be done."""


class Ending:
    """A context: once `saved` was called, the first signal ends it, later ones nothing.

    Until then signals mean what they meant before.
    """

    def __init__(self) -> None:
        self.cut_short = False
        self._saved = self._over = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Ending":
        self._old = {n: signal.signal(n, self._on_signal) for n in _NUMBERS}
        return self

    def saved(self) -> None:
        """The newest checkpoint is the last one."""
        self._saved = True

    def _on_signal(self, number: int, frame: Any) -> None:
        if not self._saved:
            signal.signal(number, self._old[number])
            signal.raise_signal(number)
        elif not self._over:
            self._over = self.cut_short = True
            raise CutShort

    def __exit__(self, kind: Any, *unused: object) -> bool:
        self._over = True
        for number, handler in self._old.items():
            signal.signal(number, handler)
        return kind is CutShort


def ignore_signals() -> None:
    """For the last moments of a process: the interpreter takes some to end."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def exit_on_signals(leave: Callable[[int], Any]) -> None:
    """SIGTERM and SIGINT `leave` with 143 and 130, until the supervisor takes them.

    SIGUSR1 asks for a checkpoint of what has not begun: nothing is done.
    """
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: leave(128 + number))
