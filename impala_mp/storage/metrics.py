"""Metrics of a run: each record is a line of metrics.jsonl and TensorBoard scalars."""

import contextlib
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from impala_mp.storage import files, histogram

if TYPE_CHECKING:
    from impala_mp.storage import event_file

COUNTERS = ("agent_steps", "env_frames", "updates", "time_secs")
_NAME = "metrics.jsonl"
_BLOCK_BYTES = 2**16  # read at a time, from the end
_MAX_LINE_BYTES = 2**20


class Writer:
    """Writer that appends records to the files of a run."""

    def __init__(
        self,
        folder: str,
        describe: Callable[[str], str] = lambda tag: "",
        begin: Callable[["event_file.EventFile"], None] = lambda events: None,
    ) -> None:
        """Opens the records of a run.

        Args:
          describe: returns TensorBoard's description of a tag.
          begin: fills a new file of TensorBoard.
        """
        self._folder, self._describe, self._begin = folder, describe, begin
        self._events: event_file.EventFile | None = None
        self._file = files.open_to_append(os.path.join(folder, _NAME))
        self._cut(lambda record: True)  # drops half a line of a killed run
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_error

    def _on_thread_error(self, arguments: Any) -> None:
        """Reports a thread's error, but not TensorBoard's: `write` raises that."""
        own = type(arguments.thread).__name__ == "_AsyncWriterThread"
        if not (own and issubclass(arguments.exc_type, OSError)):
            self._hook(arguments)

    def write(
        self,
        record: dict[str, float],
        histograms: Mapping[str, histogram.RawHistogram] | None = None,
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
        line = json.dumps({**finite, **counts}) + "\n"
        files.append_whole(self._file, line.encode())
        try:
            if self._events is None:
                self._open_events(None)
            assert self._events is not None
            tags = {
                f"progress/{key}" if key in COUNTERS else key: value
                for key, value in finite.items()
                if key != "agent_steps"
            }
            self._events.add(steps, tags, histograms)
        except OSError:
            self._drop_events()  # the error ended their thread
            raise

    def rewind(self, state: Mapping[str, float]) -> None:
        """Removes records beyond the state that the run resumes from.

        A record of the state's own update may have been made later: its `time_secs` is
        beyond the state's.

        Args:
          state: counters by their names in a record, `agent_steps` among them.
        """
        self._cut(lambda record: all(record.get(n, 0) <= x for n, x in state.items()))
        self._drop_events()
        newest = last(self._folder).get("agent_steps", state["agent_steps"])
        self._open_events(int(newest) + 1)

    def _open_events(self, purge_step: int | None) -> None:
        # Not at the top: importing TensorBoard takes long and delays the actors.
        from impala_mp.storage import event_file

        self._events = event_file.EventFile(self._folder, purge_step, self._describe)
        self._begin(self._events)

    def _drop_events(self) -> None:
        """Closes the file of TensorBoard, if there is one."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _cut(self, wanted: Callable[[dict[str, float]], bool]) -> None:
        """Ends the file with the newest record that is `wanted`."""
        os.ftruncate(self._file.fileno(), _end_of_newest(self._file, wanted))

    def close(self) -> None:
        self._file.close()
        self._drop_events()
        threading.excepthook = self._hook


def _end_of_newest(file: BinaryIO, wanted: Callable[[dict[str, float]], bool]) -> int:
    """Returns the end of the newest `wanted` record's line; 0 if there is none.

    A line that is cut off or damaged is no record. The file is read from its end,
    because it may be days long and a rewind goes back a minute.
    """
    for line, end in _lines_backwards(file):
        record = _record(line)
        if record and wanted(record):
            return end
    return 0


def _lines_backwards(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields whole lines, the last one first, each with the offset of its end.

    A line that is too long for a record is yielded as one that is empty.
    """
    start = file.seek(0, os.SEEK_END)
    block, end = b"", -1  # of the line in hand; bytes after the last newline are none
    too_long = False
    while start > 0:
        size = min(start, _BLOCK_BYTES)
        start -= size
        file.seek(start)
        block = file.read(size) + block
        while (newline := block.rfind(b"\n")) >= 0:
            if end >= 0:
                yield b"" if too_long else block[newline + 1 :], end
            block, end, too_long = block[:newline], start + newline + 1, False
        if len(block) > _MAX_LINE_BYTES:
            block, too_long = b"", True
    if end >= 0:
        yield b"" if too_long else block, end


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields whole lines; parts of a line that is too long are no records."""
    while line := file.readline(_MAX_LINE_BYTES):
        if line.endswith(b"\n"):
            yield line


def _record(line: bytes) -> dict[str, Any] | None:
    """Parses a line: numbers, and lists of numbers, by name.

    Returns None if a power cut has damaged it. Leaves out values of another type.
    """
    try:
        record = files.from_json(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not files.is_number(record.get("agent_steps")):
        return None
    return {k: v for k, v in record.items() if files.is_number(v) or _is_histogram(v)}


def _is_histogram(value: Any) -> bool:
    return isinstance(value, list) and all(map(files.is_number, value))


def _opened(folder: str) -> contextlib.AbstractContextManager[BinaryIO | None]:
    # Of any size: a run of months is read in constant memory.
    return files.opened(os.path.join(folder, _NAME), sys.maxsize)


def last(folder: str) -> dict[str, Any]:
    """Returns the newest record of a run; empty if there is none.

    Raises:
      BadInput: the records cannot be read.
    """
    with _opened(folder) as file:
        lines = _lines_backwards(file) if file else iter(())
        return next(filter(None, (_record(line) for line, _ in lines)), {})


def records(folder: str) -> Iterator[dict[str, Any]]:
    """Yields the records of a run, oldest first, in constant memory.

    A line that a power cut has cut off or damaged is no record.

    Raises:
      BadInput: the records cannot be read.
    """
    with _opened(folder) as file:
        yield from filter(None, map(_record, _lines(file) if file else ()))


def read(folder: str) -> list[dict[str, Any]]:
    """Returns the `records` of a short run as a list."""
    return list(records(folder))
