"""One record, two places: a line of metrics.jsonl and TensorBoard's scalars."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from impala_mp import lag_histogram, workdir

COUNTERS = ("agent_steps", "env_frames", "updates", "time_secs")
_HISTOGRAM = "lag/histogram"


class Writer:
    """Appends records to the files of a run."""

    def __init__(
        self, folder: str, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        """`tell` takes a sentence on what a power cut has left of the lines."""
        self._folder, self._tell = folder, tell
        self._path = os.path.join(folder, "metrics.jsonl")
        self._events: Any = None
        self._keep(lambda record: True)  # drops half a line of a run that was killed
        self._file = open(self._path, "a")  # noqa: SIM115 closed by `close`

    def write(self, record: dict[str, float], lag_counts: Sequence[int] = ()) -> None:
        """`record` holds the four COUNTERS; what is not finite is left out.

        `lag_counts` is what `lag_histogram.take` gives: a list under one key, and
        TensorBoard's histogram.

        Raises:
          OSError: the disk is full, say; what is there is whole, and the next write
            may succeed.
        """
        steps = int(record["agent_steps"])
        lags = {_HISTOGRAM: list(lag_counts)} if lag_counts else {}
        finite = {k: v for k, v in record.items() if math.isfinite(v)}
        try:
            self._append(json.dumps({**finite, **lags}) + "\n")
            self._add_scalars(finite, steps)
            if lag_counts:
                raw = lag_histogram.raw(lags[_HISTOGRAM])
                self._events.add_histogram_raw(_HISTOGRAM, *raw, global_step=steps)
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
        self._keep(lambda record: record["agent_steps"] <= agent_steps)
        old, self._file = self._file, open(self._path, "a")  # noqa: SIM115 by `close`
        old.close()
        if self._events is not None:
            self._events.close()
        self._open_events(agent_steps + 1)

    def _open_events(self, purge_step: int | None) -> None:
        # Importing TensorBoard takes a second, which would delay the first actor.
        from torch.utils import tensorboard

        folder = os.path.join(self._folder, "tensorboard")
        writer: Any = tensorboard.SummaryWriter
        self._events = writer(folder, purge_step=purge_step, flush_secs=10)

    def _keep(self, wanted: Any) -> None:
        """Rewrites the file with the records that are `wanted`, if some are not."""
        if not os.path.exists(self._path):
            return
        before = _text(self._path)
        records, num_damaged = _parse(before)
        if num_damaged:
            self._tell(f"{num_damaged} damaged lines of {self._path} are left out.")
        kept = [record for record in records if wanted(record)]
        after = "".join(json.dumps(record) + "\n" for record in kept)
        if after == before:
            return
        workdir.write_atomically(self._path, after)

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):  # a full disk; the lines are complete
                self._events.close()


def _text(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def _parse(text: str) -> tuple[list[dict[str, float]], int]:
    """The records, and the number of lines that are none; the last may be cut off."""
    lines = text.split("\n")[:-1]
    records = [record for record in map(_record, lines) if record]
    return records, len(lines) - len(records)


def _record(line: str) -> dict[str, float] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and "agent_steps" in record
    return record if whole else None


def read(folder: str) -> list[dict[str, float]]:
    """The records of a run, oldest first; none if it has written none."""
    path = os.path.join(folder, "metrics.jsonl")
    if not os.path.exists(path):
        return []
    return _parse(_text(path))[0]
