"""Doorbell between processes: a hint that may get lost, never a lock."""

import contextlib
import os
import select
from collections.abc import Sequence

from impala_mp.transport import kernel


class Doorbell(kernel.Descriptor):
    """Wakes a process that waits on it. The counters in shared memory are the truth."""

    def __init__(self, fd: int | None = None) -> None:
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
        super().__init__(os.eventfd(0, flags) if fd is None else fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout_secs: float) -> bool:
        """Waits for a ring and consumes it; returns False if none came."""
        if not self._poll.poll(timeout_secs * 1000.0):
            return False
        with contextlib.suppress(BlockingIOError):  # another process consumed it
            os.eventfd_read(self._fd)
        return True


def wait_for_any(bells: Sequence[Doorbell], timeout_secs: float) -> None:
    """Waits for a ring of any of the bells, and consumes those that came."""
    if len(bells) == 1:
        bells[0].wait(timeout_secs)
        return
    poll = select.poll()
    for bell in bells:
        poll.register(bell.fileno(), select.POLLIN)
    poll.poll(timeout_secs * 1000.0)
    for bell in bells:
        bell.wait(0.0)
