"""Every finished game of a run, as a row of episodes.csv."""

import csv
import io
import itertools
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp.storage import files

NAME = "episodes.csv"
FIELDS = ("agent_steps", "time_secs", "return", "length", "task")
_BLOCK_BYTES = 2**20
_BUFFER_BYTES = 2**16  # written at once
_MAX_BUFFER_BYTES = 2**24  # kept for a disk that is full
_RETRY_SECS = 600.0  # between two attempts to copy the file onto a full disk
_MAX_FILE_BYTES = 2**33  # that `read` takes into memory


class Writer:
    """Writer of a run's rows. The learner owns the file."""

    def __init__(self, folder: str, tasks: Sequence[str] = ("",)) -> None:
        """`tasks` are their names; "" if there is only one.

        Raises:
          OSError: the file cannot be opened.
        """
        self._path = os.path.join(folder, NAME)
        self._tasks = [_cell(task) for task in tasks]
        self._file = files.open_to_append(self._path)
        self._buffer, self._num_buffered = [""], 0
        self._num_names = 0  # columns of the user's numbers in the header
        self._widen_at = -math.inf  # monotonic time of the next attempt
        self.num_rows = 0  # in the file and the buffer
        self.num_lost = 0  # rows that a full disk did not take

    def _header_bytes(self) -> int:
        self._file.seek(0)
        return len(self._file.readline(_BLOCK_BYTES))

    def rewind(self, num_rows: int, names: Sequence[str] = ()) -> None:
        """Leaves the first `num_rows` rows, and begins the file if it is empty.

        The later ones are of updates that were lost with a learner.
        """
        self._buffer, self._num_buffered = [""], 0
        end, self.num_rows = self._end_of(num_rows)
        os.ftruncate(self._file.fileno(), end)
        self._num_names = 0 if end else len(names)
        if end:
            self._widen(names)
        else:
            self._begin(_header(names))

    def _begin(self, header: str) -> None:
        """Writes the header; on a full disk, it waits with the first rows."""
        try:
            files.append_whole(self._file, header.encode())
        except OSError as error:
            print(f"{error}: {NAME} is not begun yet.", flush=True)
            self._buffer, self._num_buffered = [header], len(header)

    def _end_of(self, num_rows: int) -> tuple[int, int]:
        """Returns the end of a row and its number; of the last whole one if fewer."""
        end = self._header_bytes()
        self._file.seek(0)
        if not self._file.readline(_BLOCK_BYTES).endswith(b"\n"):
            return 0, 0
        found = 0
        while found < num_rows and (block := self._file.read(_BLOCK_BYTES)):
            places = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
            wanted = places[: num_rows - found]
            found += len(wanted)
            start = self._file.tell() - len(block)
            end = start + int(wanted[-1]) + 1 if len(wanted) else end
        return end, found

    def _extend_header(self, names: Sequence[str]) -> None:
        """Replaces the header; rows before a name appeared are shorter."""
        self._file.seek(0)
        if self._file.readline(_BLOCK_BYTES) == _header(names).encode():
            return
        with files.replacing(self._path) as temporary, files.create(temporary) as new:
            new.write(_header(names).encode())
            shutil.copyfileobj(self._file, new, _BLOCK_BYTES)
            new.flush()
            os.fsync(new.fileno())
        self._file.close()
        self._file = files.open_to_append(self._path)

    def _widen(self, names: Sequence[str]) -> None:
        """Adds columns for new names; on a full disk not yet."""
        self.flush()
        try:
            self._extend_header(names)
        except OSError as error:
            print(f"{error}: {NAME} does not get its new columns yet.", flush=True)
            self._widen_at = time.monotonic() + _RETRY_SECS
            return
        self._num_names = len(names)

    def add(
        self,
        agent_steps: int,
        time_secs: float,
        returns: np.ndarray,
        lengths: np.ndarray,
        tasks: np.ndarray,
        numbers: np.ndarray,
        names: Sequence[str],
    ) -> None:
        """Adds the games of one batch, in their order.

        Args:
          agent_steps, time_secs: progress at its end.
          returns, lengths, tasks: [G].
          numbers: [G, names].
        """
        count = len(returns)
        if not count:
            return
        if len(names) > self._num_names and time.monotonic() >= self._widen_at:
            self._widen(names)
        names, numbers = names[: self._num_names], numbers[:, : self._num_names]
        line = f"{agent_steps},{time_secs:.3f},%.9g,%d,%s"
        cells = [returns.tolist(), lengths.tolist(), [self._tasks[i] for i in tasks]]
        if names:
            line += ",%s" * len(names)
            cells += [[_number(x) for x in each] for each in numbers.T.tolist()]
        values = tuple(itertools.chain.from_iterable(zip(*cells, strict=True)))
        text = f"{line}\n" * count % values
        self._buffer.append(text)
        self._num_buffered += len(text)
        self.num_rows += count
        if self._num_buffered > _BUFFER_BYTES:
            self.flush()

    def flush(self, durable: bool = False) -> None:
        """Writes buffered rows. Those that a full disk does not take wait in memory.

        When they take too much memory they are lost, and counted.
        """
        if not durable and not any(self._buffer):  # there may be rows that had no room
            return
        text = "".join(self._buffer)
        try:
            files.append_whole(self._file, text.encode())
        except OSError as error:
            if len(text) > _MAX_BUFFER_BYTES:
                lost = text.count("\n")
                self.num_lost += lost
                self.num_rows -= lost
                text = ""
                print(f"{error}: {lost:,} rows of {NAME} are lost.", flush=True)
            self._buffer, self._num_buffered = [text], 0
            return
        self._buffer, self._num_buffered = [""], 0
        if durable:
            self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            print(f"{error}: the disk may lack rows of {NAME}.", flush=True)

    def close(self) -> None:
        self.flush()
        self._file.close()


def _header(names: Sequence[str]) -> str:
    return ",".join(map(_cell, [*FIELDS, *names])) + "\n"


def _cell(text: str) -> str:
    """Returns a cell of a CSV file."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return "" if not text else line.getvalue()


def _number(value: float) -> str:
    return "" if value != value else f"{value:.9g}"


def read(folder: str) -> dict[str, Any]:
    """Returns the columns of a run's rows; empty if it has none.

    Returns:
      float64 [G] by name, NaN where a cell is empty or no number; `task` is a list of
      names.

    Raises:
      BadInput: the file cannot be read, or is too large.
    """
    with files.opened(os.path.join(folder, NAME), _MAX_FILE_BYTES) as file:
        if file is None:
            return {}
        return _columns(io.TextIOWrapper(file, errors="replace", newline=""))


def _columns(lines: Any) -> dict[str, Any]:
    """Parses CSV. A line that a power cut has cut off or damaged is no row."""
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(
        line for line in lines if line.endswith("\n") and "\0" not in line
    )
    header = next(rows, None)
    if header is None or tuple(header[: len(FIELDS)]) != FIELDS:
        return {}
    cells: list[list[Any]] = [[] for _ in header]
    task = FIELDS.index("task")
    for row in rows:
        if not len(FIELDS) <= len(row) <= len(header):
            continue
        for i, column in enumerate(cells):
            text = row[i] if i < len(row) else ""
            column.append(text if i == task else _float(text))
    return {
        name: column if i == task else np.array(column, np.float64)
        for i, (name, column) in enumerate(zip(header, cells, strict=True))
    }


def _float(text: str) -> float:
    try:
        return float(text) if text else np.nan
    except ValueError:
        return np.nan
