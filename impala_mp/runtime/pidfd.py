"""Descriptor of a process: readable once it has ended, and never another process."""

import errno
import os

from impala_mp import errors
from impala_mp.transport import kernel

_SEND_SIGNAL, _OPEN = 424, 434  # numbers of the calls, on every processor


def of(pid: int) -> int:
    """Opens the descriptor of a process.

    Raises:
      ProcessLookupError: it has been reaped.
    """
    return kernel.call(_OPEN, pid, 0)


def send_signal(descriptor: int, number: int) -> None:
    """Sends a signal to the process.

    Raises:
      ProcessLookupError: it has ended.
    """
    kernel.call(_SEND_SIGNAL, descriptor, number, None, 0)


def check() -> None:
    """Raises BadInput if the kernel, or a sandbox, does not open such descriptors."""
    try:
        os.close(of(os.getpid()))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # that of a sandbox
            raise
        raise errors.BadInput(
            f"pidfd_open is refused ({error.strerror}), and Linux {os.uname().release}"
            " runs here. Use Linux 5.3 or newer, in a container that allows the call."
        ) from error
