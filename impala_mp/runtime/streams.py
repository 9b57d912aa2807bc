"""Standard output and error that survive a full disk and a closed pipe."""

import io
import sys
from typing import Any


class _Raw(io.FileIO):
    """File that discards the bytes that cannot be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def survive_errors() -> None:
    """Replaces sys.stdout and sys.stderr by such streams."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        encoding = getattr(getattr(sys, name), "encoding", None)
        setattr(sys, name, _stream(number, encoding))


def _stream(number: int, encoding: str | None) -> io.TextIOWrapper:
    raw = _Raw(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True
    )
