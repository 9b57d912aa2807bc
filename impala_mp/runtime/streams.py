"""Standard output and error on a full disk, a closed pipe, or closed from the start."""

import errno
import io
import os
import sys
from typing import Any


class OutputFailed(BaseException):
    """Standard output that cannot be written; the code is the command's exit code."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written ({error.strerror or error}).")
        self.is_closed = error.errno == errno.EPIPE  # by its reader, as `head` does
        self.code = 141 if self.is_closed else 1


class _Raw(io.FileIO):
    """File that discards the bytes that cannot be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self._fail(error)
            return memoryview(data).nbytes

    def _fail(self, error: OSError) -> None:
        pass


class _Ending(_Raw):
    """File whose first failure ends the command."""

    _failed = False

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            raise OutputFailed(error)


def fill_gaps() -> None:
    """Opens /dev/null for standard streams that are closed.

    Their numbers would be given to the next files that are opened.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def survive_errors() -> None:
    """Makes a failed write to standard output or error do nothing."""
    _replace(_Raw)


def end_on_errors() -> None:
    """Makes the first failed write to standard output raise OutputFailed.

    A failed write to standard error does nothing.
    """
    _replace(_Ending)


def _replace(kind: type[_Raw]) -> None:
    for number, name, made in ((1, "stdout", kind), (2, "stderr", _Raw)):
        encoding = getattr(getattr(sys, name), "encoding", None)
        raw = made(number, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)
