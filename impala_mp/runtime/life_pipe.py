"""Life pipe: its closing kills all children, so none outlives the supervisor.

The supervisor holds the only write end. A child asks the kernel for SIGKILL when the
pipe closes. So it dies with the supervisor even while it hangs in C code.
(PR_SET_PDEATHSIG would watch the fork server, which lives longer.)
"""

import fcntl
import os
import select
import signal
from multiprocessing import reduction
from typing import Any


class LifePipe:
    """The supervisor's ends. Pickled to a child, it becomes a `ChildEnd`."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC)

    def close(self) -> None:
        """Kills every process bound to it."""
        os.close(self._write)
        os.close(self._read)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChildEnd, (reduction.DupFd(self._read),)


class ChildEnd:
    """A child's read end."""

    def __init__(self, duplicate: Any) -> None:
        self._inherited = duplicate.detach()

    def bind(self) -> None:
        """Binds the life of this process to the supervisor's."""
        signal_at_close(self._inherited, signal.SIGKILL)


def signal_at_close(inherited: int, number: int) -> None:
    """Sends `number` to this process when the last write end of a pipe closes.

    It takes the read end `inherited`.
    """
    # Owner and signal belong to the open file description, which all children share. So
    # each child opens a separate one.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(f"/proc/self/fd/{inherited}", flags)
    os.close(inherited)
    fcntl.fcntl(fd, fcntl.F_SETSIG, number)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if poll.poll(0):  # closed before the signal was asked for
        os.kill(os.getpid(), number)
