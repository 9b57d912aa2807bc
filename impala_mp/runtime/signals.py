"""Signal handling before the supervisor starts and after the last checkpoint."""

import signal
from collections.abc import Callable
from typing import Any, NoReturn

from impala_mp import errors

# Those that end a run: a scheduler's, a terminal's, and that of a closed terminal.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NEEDED = {
    *ENDING,
    signal.SIGCHLD,  # the fork server learns of deaths by it
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,  # limits the close() of an environment
}


class CutShort(BaseException):
    """A signal after the last checkpoint: the remaining work is skipped."""


class Ending:
    """Context that the first signal after `saved` ends; later ones do nothing.

    Before `saved`, the earlier signal handlers act.
    """

    def __init__(self) -> None:
        self.cut_short = False
        self._saved = self._over = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Ending":
        self._old = {n: signal.signal(n, self._on_signal) for n in ending()}
        return self

    def saved(self) -> None:
        """Marks the newest checkpoint as the last one."""
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


def name_of(number: int) -> str:
    """Returns the name of a signal; Python knows none of most real-time signals."""
    names = {each.value: each.name for each in signal.Signals}
    return names.get(number, f"signal {number}")


def ending() -> list[signal.Signals]:
    """Returns the signals that end this run: SIGHUP does not under `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [each for each in ENDING if not (ignored and each == signal.SIGHUP)]


def ignore_signals() -> None:
    """Ignores signals while the process ends."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def exit_on_signals(leave: Callable[[int], Any]) -> None:
    """Makes SIGTERM, SIGINT and SIGHUP call `leave` with 143, 130 and 129.

    The supervisor replaces these handlers. SIGUSR1 requests a checkpoint; before the
    training starts it does nothing. A launcher may have blocked or ignored the signals
    that this process and its children depend on.
    """
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    for number in ending():
        signal.signal(number, lambda number, frame: leave(128 + number))
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    unblock()


def unblock() -> None:
    """Unblocks the signals that every process of a run depends on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NEEDED)


def leave_to_supervisor() -> None:
    """Lets the signals that end a run do nothing in this child.

    A terminal's Ctrl-C and end, and a scheduler's SIGTERM reach all processes. Only the
    supervisor acts on them. Handlers, because programs that an environment starts would
    inherit ignored signals.
    """
    for number in ENDING:
        signal.signal(number, lambda number, frame: None)
    unblock()


def interrupt(code: int) -> NoReturn:
    """Ends the work of this process with an exception."""
    raise errors.Interrupted(code)
