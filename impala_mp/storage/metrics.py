"""One record, two places: a line of metrics.jsonl and TensorBoard's scalars."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

COUNTERS = ("agent_steps", "env_frames", "updates", "time_secs")
_BLOCK_BYTES = 2**16  # that are read at a time, from the end


class RawHistogram(NamedTuple):
    """What TensorBoard's `add_histogram_raw` takes, in its order."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]  # upper ones
    bucket_counts: list[int]


class Writer:
    """Appends records to the files of a run."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, "metrics.jsonl")
        self._events: Any = None
        self._cut(lambda record: True)  # half a line of a run that was killed
        self._file = open(self._path, "a")  # noqa: SIM115 closed by `close`

    def write(
        self,
        record: dict[str, float],
        histograms: Mapping[str, RawHistogram] | None = None,
    ) -> None:
        """Writes one record, which holds the four COUNTERS, without non-finite values.

        Args:
          histograms: by name; the line gets the counts of their buckets.

        Raises:
          OSError: the disk is full, say; what is there is whole, and the next write
            may succeed.
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
            self._events = None  # its thread has died with the error
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
        """Forgets what lies beyond `agent_steps`: the run goes on from there."""
        self._cut(lambda record: record["agent_steps"] <= agent_steps)
        if self._events is not None:
            self._events.close()
        self._open_events(agent_steps + 1)

    def _open_events(self, purge_step: int | None) -> None:
        # Importing TensorBoard takes a second, which would delay the first actor.
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
    """Where the line of the newest record that is `wanted` ends; 0 if there is none.

    A line that is cut off or damaged is no record. A run of many days has a long file,
    and a rewind goes back a minute: it is read from the end.
    """
    with open(path, "rb") as file:
        for line, end in _lines_backwards(file):
            record = _record(line)
            if record and wanted(record):
                return end
    return 0


def _lines_backwards(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Whole lines, the last one first, each with the offset of what follows it."""
    start = file.seek(0, os.SEEK_END)
    block, whole = b"", False  # what follows the last newline is no line
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
    """None for a line that a power cut has damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and "agent_steps" in record
    return record if whole else None


def last(folder: str) -> dict[str, float]:
    """The newest record of a run; empty if it has written none."""
    path = os.path.join(folder, "metrics.jsonl")
    if not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        records = (_record(line) for line, _ in _lines_backwards(file))
        return next(filter(None, records), {})


def read(folder: str) -> list[dict[str, float]]:
    """The records of a run, oldest first; none if it has written none.

    A line that is cut off or damaged, as a power cut leaves it, is no record.
    """
    path = os.path.join(folder, "metrics.jsonl")
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")[:-1]
    return list(filter(None, map(_record, lines)))
