"""System calls that Python may lack, and open files that go to children.

A Python has only the calls that its C library had where it was built. Those of uv, mise
and conda are built with glibc 2.17, which is older than memfd_create and pidfds.
"""

import ctypes
import functools
import os
from multiprocessing import reduction
from typing import Any, Self


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int | bytes | None) -> int:
    """Makes a system call by its number; returns its result.

    Raises:
      OSError: the kernel refuses it. With ENOSYS the kernel does not have it.
    """
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Descriptor:
    """Open file that is closed with the object. Picklable to a child at its start."""

    _fd = -1

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._attached, (reduction.DupFd(self._fd),)

    @classmethod
    def _attached(cls, duplicate: Any) -> Self:
        fd = duplicate.detach()
        os.set_inheritable(fd, False)  # programs that a child starts outlive the run
        return cls(fd)
