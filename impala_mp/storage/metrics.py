"""Metrics of a run: each record is a line of metrics.jsonl and TensorBoard scalars."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

COUNTERS = ("agent_steps", "env_frames", "updates", "time_secs")
_BLOCK_BYTES = 2**16  # read at a time, from the end


class RawHistogram(NamedTuple):
    """Arguments of TensorBoard's `add_histogram_raw`, in its order."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]  # upper limits
    bucket_counts: list[int]


class Writer:
    """Writer that appends records to the files of a run."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, "metrics.jsonl")
        self._events: Any = None
        self._cut(lambda record: True)  # drops half a line of a killed run
        self._file = open(self._path, "a")  # noqa: SIM115 closed by `close`

    def write(
        self,
        record: dict[str, float],
        histograms: Mapping[str, RawHistogram] | None = None,
    ) -> None:
        """Writes one record with the four COUNTERS, without its non-finite values.

        Args:
          histograms: by name; the line gets the counts of their buckets.

        Raises:
          OSError: the record cannot be written, for example because the disk is
            full. The files stay whole, and the next write may succeed.
        """
        steps = int(record["agent_steps"])
        histograms = histograms or {}
        counts = {name: each.bucket_counts for name, each in histograms.items()}
        finite = {k: v for k, v in record.items() if math.isfinite(v)}
        try:
            self._append(json.dumps({**finite, **counts}) + "\n")
            self._add_scalars(finite, steps)
            for name, each in histograms.items():
                self._events.add_histogram_raw(name, *each, global_step=steps)
        except OSError:
            self._events = None  # the error ended its thread
            raise

    def _append(self, line: str) -> None:
        size = os.path.getsize(self._path)
        try:
            os.write(self._file.fileno(), line.encode())
            written = os.path.getsize(self._path) - size
            if written < len(line.encode()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        except OSError:
            os.truncate(self._path, size)
            raise

    def _add_scalars(self, finite: dict[str, float], steps: int) -> None:
        if self._events is None:
            self._open_events(None)
        for key, value in finite.items():
            if key == "agent_steps":
                continue
            tag = f"progress/{key}" if key in COUNTERS else key
            self._events.add_scalar(tag, value, steps)

    def rewind(self, agent_steps: int) -> None:
        """Removes records beyond `agent_steps`, where the run resumes."""
        self._cut(lambda record: record["agent_steps"] <= agent_steps)
        if self._events is not None:
            self._events.close()
        self._open_events(agent_steps + 1)

    def _open_events(self, purge_step: int | None) -> None:
        # Not at the top: importing TensorBoard takes a second and delays the actors.
        from torch.utils import tensorboard

        folder = os.path.join(self._folder, "tensorboard")
        writer: Any = tensorboard.SummaryWriter
        self._events = writer(folder, purge_step=purge_step, flush_secs=10)

    def _cut(self, wanted: Callable[[dict[str, float]], bool]) -> None:
        """Ends the file with the newest record that is `wanted`."""
        if os.path.exists(self._path):
            os.truncate(self._path, _end_of_newest(self._path, wanted))

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):  # a full disk; the lines are complete
                self._events.close()


def _end_of_newest(path: str, wanted: Callable[[dict[str, float]], bool]) -> int:
    """Returns the end of the newest `wanted` record's line; 0 if there is none.

    A line that is cut off or damaged is no record. The file is read from its end,
    because it may be days long and a rewind goes back a minute.
    """
    with open(path, "rb") as file:
        for line, end in _lines_backwards(file):
            record = _record(line)
            if record and wanted(record):
                return end
    return 0


def _lines_backwards(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields whole lines, the last one first, each with the offset of its end."""
    start = file.seek(0, os.SEEK_END)
    block, whole = b"", False  # bytes after the last newline are no line
    while start > 0:
        size = min(start, _BLOCK_BYTES)
        start -= size
        file.seek(start)
        block = file.read(size) + block
        while (newline := block.rfind(b"\n")) >= 0:
            block, line = block[:newline], block[newline + 1 :]
            if whole:
                yield line, start + newline + 1 + len(line) + 1
            whole = True
    if whole:
        yield block, len(block) + 1


def _record(line: bytes) -> dict[str, float] | None:
    """Parses a line; returns None if a power cut has damaged it."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and "agent_steps" in record
    return record if whole else None


def last(folder: str) -> dict[str, float]:
    """Returns the newest record of a run; empty if there is none."""
    path = os.path.join(folder, "metrics.jsonl")
    if not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        records = (_record(line) for line, _ in _lines_backwards(file))
        return next(filter(None, records), {})


def read(folder: str) -> list[dict[str, float]]:
    """Returns the records of a run, oldest first; empty if there are none.

    A line that a power cut has cut off or damaged is no record.
    """
    path = os.path.join(folder, "metrics.jsonl")
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")[:-1]
    return list(filter(None, map(_record, lines)))
