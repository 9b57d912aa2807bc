"""One training in a separate process, seen from outside: its files and its end.

Tests, benchmarks and faults all use it. It knows nothing of the package but the names
of its files and of some metrics.
"""

import itertools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

Record = dict[str, Any]  # one line of metrics.jsonl
Process = dict[str, Any]  # one process of health.json

DEADLINE_SECS = 180.0  # generous: a machine under load passes the tests, too
_POLL_SECS = 0.05
_NOT_YET = ("not_started", "starting", "resetting")  # states before the first step
COUNTERS = (  # metrics that never run backwards, even if any process is killed
    *("agent_steps", "env_frames", "updates", "time_secs", "episode/count"),
    *(f"health/{name}" for name in ("committed", "learned", "discarded", "restarts")),
    *(f"health/{name}" for name in ("bad_data", "updates_skipped", "drift_alarms")),
    "health/torn_reads_retried",
)


class Training:
    """A training by the command, from its start to its end."""

    def __init__(
        self,
        workdir: str | pathlib.Path,
        flags: Iterable[str],
        *,
        output: pathlib.Path | None = None,
        env: dict[str, str] | None = None,
        own_session: bool = False,
    ) -> None:
        """output: a file to append to; by default one beside `workdir`, overwritten.

        env: variables beside those of this process.
        """
        self.workdir = pathlib.Path(workdir)
        self.output = output or self.workdir.with_suffix(".out")
        self._lines = Lines(self.workdir / "metrics.jsonl")
        self._records: list[Record] = []
        command = [sys.executable, "-m", "impala_mp.cli.train", *flags]
        self.born = time.monotonic()
        with open(self.output, "a" if output else "w") as file:
            self.process = subprocess.Popen(
                [*command, f"--workdir={self.workdir}"],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=own_session,
            )

    def processes(self, role: str | None = None) -> list[Process]:
        """Returns the processes of this role that health.json gives a pid."""
        found = [p for p in processes(self.workdir) if p["pid"]]
        return [p for p in found if role in (None, p["role"])]

    def records(self) -> list[Record]:
        """Returns all records so far. Reads only new ones: cores are for training."""
        lines, is_whole = self._lines.new()
        if is_whole:
            self._records.clear()
        self._records += [json.loads(line) for line in lines]
        return list(self._records)

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def until(self, condition: Callable[[], Any], secs: float = DEADLINE_SECS) -> Any:
        """Returns the first true result of `condition`; an IndexError is a false one.

        Raises a RuntimeError at the deadline, and when the training ends before.
        """

        def result() -> Any:
            try:
                return condition()
            except IndexError:  # there is no record yet
                return None

        found = wait_for(result, secs, ended=self.is_over)
        if not found:
            how = f"with exit code {self.process.poll()}" if self.is_over() else "not"
            raise RuntimeError(
                f"the condition never held; the training has ended {how}:\n"
                + self.text()
            )
        return found

    def until_running(self, role: str = "actor", count: int = 1) -> list[Process]:
        """Returns processes of a role once `count` of them have started to work."""

        def running() -> list[Process] | None:
            found = [p for p in self.processes(role) if p["state"] not in _NOT_YET]
            return found if len(found) >= count else None

        return self.until(running)

    def wait(self, secs: float = DEADLINE_SECS) -> int:
        """Returns the exit code."""
        return self.process.wait(secs)

    def stop(self, secs: float = DEADLINE_SECS) -> None:
        """Asks for the end; kills what has not ended in time, with all its children."""
        if not self.is_over():
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(secs)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Lines:
    """Whole lines of a file that grows, and that may be cut off or replaced."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._offset, self._newest = 0, b""  # bytes that were read; their last line

    def new(self) -> tuple[list[bytes], bool]:
        """Returns lines since the last call, or all again (True) of a changed file.

        A file has changed where the newest line is no longer at its place: it may have
        grown again since it was cut off.
        """
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset - len(self._newest))
                text = file.read()
                is_changed = not text.startswith(self._newest)
                if is_changed:
                    file.seek(0)
                    text, self._offset, self._newest = file.read(), 0, b""
        except FileNotFoundError:
            return [], False
        whole = text[len(self._newest) : text.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        self._offset += len(whole)
        self._newest = lines[-1] if lines else self._newest
        return lines, is_changed


def wait_for(
    condition: Callable[[], Any],
    secs: float,
    pause: Callable[[], object] = lambda: time.sleep(_POLL_SECS),
    ended: Callable[[], bool] = lambda: False,
) -> Any:
    """Returns the result of `condition` once it is true, or the last false one.

    ended: returns whether to stop early, after one more look.
    """
    deadline = time.monotonic() + secs
    while time.monotonic() < deadline and not ended():
        found = condition()
        if found:
            return found
        pause()
    return condition()


def processes(workdir: pathlib.Path) -> list[Process]:
    """Returns all processes of health.json, with a pid or (not started) without."""
    found: list[Process] = health(workdir)["processes"]
    return found


def health(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the content of health.json, without processes before it is written."""
    try:
        found: dict[str, Any] = json.loads((workdir / "health.json").read_text())
    except FileNotFoundError:
        return {"processes": []}
    return found


def trajectories(record: Record, policy: str = "") -> dict[str, int]:
    """Returns how many were committed, and where each of them is now.

    policy: one of several; by default those of all.
    """
    names = ("committed", "learned", "discarded", "in_flight")
    suffix = f"/{policy}" if policy else ""
    return {name: record[f"health/{name}{suffix}"] for name in names}


def policies(record: Record) -> list[str]:
    """Returns the names of a run's policies, if it has several."""
    prefix = "health/committed/"
    return [name.removeprefix(prefix) for name in record if name.startswith(prefix)]


def identity_holds(record: Record) -> bool:
    """Returns whether every trajectory is accounted for.

    Those that were committed, in each policy, and those that actor hosts reported.
    """
    every = [trajectories(record, policy) for policy in ["", *policies(record)]]
    if "hosts/reported" in record and record["hosts/reported"] != sum(
        record[f"hosts/{name}"] for name in ("arrived", "on_the_way", "lost")
    ):
        return False
    return all(counts.pop("committed") == sum(counts.values()) for counts in every)


def is_backwards(before: Record, after: Record) -> bool:
    """Returns whether a counter is less than in the record before, in any policy."""
    suffixes = ["", *(f"/{policy}" for policy in policies(before))]
    names = [name + suffix for name in COUNTERS for suffix in suffixes]
    return any(after.get(name, 0) < before.get(name, 0) for name in names)


def never_backwards(records: list[Record]) -> bool:
    return not any(itertools.starmap(is_backwards, itertools.pairwise(records)))


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat after the name: state, parent, ..."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ["X", "0"]  # the process is gone
    return text.rsplit(")", 1)[1].split()


def is_alive(pid: int) -> bool:
    return _stat(pid)[0] not in "ZX"


def parent(pid: int) -> int:
    """Returns the pid of the parent; 0 of a process that is gone."""
    return int(_stat(pid)[1])


def family(pids: Iterable[int], generations: float = math.inf) -> set[int]:
    """Returns the pids, and those of all processes that they have started.

    Those of one generation were started by the pids themselves, and so on.
    """
    names = [path.name for path in pathlib.Path("/proc").iterdir()]
    parents = {int(name): parent(int(name)) for name in names if name.isdigit()}
    found, depth = set(pids), 0
    while depth < generations and (
        more := {p for p, above in parents.items() if above in found} - found
    ):
        found |= more
        depth += 1
    return found


def cpu_secs(pids: Iterable[int], generations: float = math.inf) -> float:
    """Returns the CPU time of processes, and of those that they have started."""
    them = family(pids, generations)
    ticks = sum(int(n) for pid in them for n in _stat(pid)[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def survivors(pids: Iterable[int], secs: float) -> list[int]:
    """Returns the pids that are still alive after at most so many seconds."""
    pids = list(pids)
    wait_for(lambda: not any(map(is_alive, pids)), secs, lambda: time.sleep(0.02))
    return [pid for pid in pids if is_alive(pid)]
