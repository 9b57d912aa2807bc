"""A byte that says "look": a hint that can get lost, never a lock that can be held."""

import contextlib
import os
import select
from multiprocessing import reduction
from typing import Any


class Doorbell:
    """Wakes whoever waits on it. The counters it points at are the truth."""

    def __init__(self, fd: int | None = None) -> None:
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
        self._fd = os.eventfd(0, flags) if fd is None else fd
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout_secs: float) -> bool:
        """Waits for a ring, and takes it; False if none came."""
        if not self._poll.poll(timeout_secs * 1000.0):
            return False
        with contextlib.suppress(BlockingIOError):  # taken by somebody else: as good
            os.eventfd_read(self._fd)
        return True

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (reduction.DupFd(self._fd),)


def _attach(duplicate: Any) -> Doorbell:
    return Doorbell(duplicate.detach())
