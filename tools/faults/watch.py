"""Watches a run from outside: its files, its processes, and its remains."""

import collections
import contextlib
import json
import os
import pathlib
import statistics
import time
from typing import Any, Protocol

import harness

ALIVE = ("running", "waiting_for_slot", "waiting_for_data", "waiting_for_ranks")
TOKEN = "IMPALA_CHAOS"  # an environment variable that every process of a run inherits

_LOOKS = 50  # at open files, a second or more: longer than a child is missing


class Wound:
    """A process that was taken from the run, until another one does its work."""

    patience_secs = 60.0

    def __init__(self, name: str, seat: dict[str, Any], supervisor: int) -> None:
        self.name = name  # under which its recovery is counted
        self.since = time.monotonic()
        self._role, self._index = seat["role"], seat["index"]
        self._life = (supervisor, seat["incarnation"])
        self._records_before: int | None = None  # set once the successor runs

    def healed(self, watch: "Watch") -> bool:
        if self._records_before is None and self._has_successor(watch):
            self._records_before = watch.num_records
        if self._records_before is None:
            return False
        # The learner has learned once more when a record has been written after that.
        return self._role != "learner" or watch.num_records > self._records_before

    def _has_successor(self, watch: "Watch") -> bool:
        supervisor, incarnation = self._life
        return any(
            p["index"] == self._index
            and p["state"] in ALIVE
            and (watch.supervisor != supervisor or p["incarnation"] > incarnation)
            for p in watch.seats(self._role)
        )


class FullDisk:
    """A file system that was full, until a checkpoint is written to it again."""

    name, patience_secs = "disk", 60.0

    def __init__(self, folder: pathlib.Path) -> None:
        self.since = time.monotonic()
        self._folder, self._before = folder, _checkpoints(folder)

    def healed(self, watch: "Watch") -> bool:
        return bool(_checkpoints(self._folder) - self._before)


def _checkpoints(folder: pathlib.Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.name.isdigit()}


class Healing(Protocol):
    """Damage to a run, until the run has recovered."""

    name: str  # under which its recovery is counted
    since: float
    patience_secs: float  # until it is beyond healing

    def healed(self, watch: "Watch") -> bool: ...


class Watch:
    """Reads health.json and metrics.jsonl as they grow."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._processes: list[dict[str, Any]] = []
        self.hosts: list[dict[str, Any]] = []  # actor hosts, of the same supervisor
        self.supervisor = 0  # whose health.json counts; the run's to set
        self.last: dict[str, Any] = {}
        self.num_records = self.identity_violations = self.counters_backwards = 0
        self.mixed_unrolls = 0
        self.bad_data: int | None = None  # trajectories; None: no record counts them
        self.wounds: list[Healing] = []
        self.recovery_secs: dict[str, list[float]] = collections.defaultdict(list)
        self.unhealed: list[str] = []
        self.bad_records = 0
        self._lateness: list[float] = []  # the clock's time minus the learner's
        self.learner_pause_secs = 0.0  # the longest without an update, while it ran
        self._updated = (-1, 0.0)  # updates, and the time of the last one
        self._seen: set[int] = set()
        self._lines = harness.Lines(folder / "metrics.jsonl")
        self._recorders: set[int] = set()  # supervisors that have written a record
        self._descriptors: dict[int, list[int]] = {}  # at each look, by supervisor

    def look(self) -> None:
        """Reads the files of the run; call it often."""
        # In this order: health.json is written before the record of the same moment,
        # so that a record read after a learner was seen running is that learner's.
        self._read_health()
        self._heal()
        self.read_records()
        self._count_descriptors()

    def seats(self, role: str) -> list[dict[str, Any]]:
        """The processes that have this role, if the supervisor knows any."""
        return [p for p in self._processes if p["role"] == role and p["pid"]]

    def descriptors(self) -> int:
        """The most by which a supervisor's open files grew.

        By the medians of its first and its last looks: a child that has just died is
        in health.json for a moment more, and its descriptors are not there.
        """
        growths = [
            statistics.median_low(counts[-_LOOKS:])
            - statistics.median_high(counts[:_LOOKS])
            for counts in self._descriptors.values()
        ]
        return max([0, *growths])

    def learning_secs_lost(self) -> float:
        """Time that is not in the learner's own: it was down, or learned it again."""
        return self._lateness[-1] - self._lateness[0] if self._lateness else 0.0

    def _read_health(self) -> None:
        health = harness.health(self._folder)
        self._processes, self.hosts = health["processes"], health.get("hosts", [])
        if self._processes and self._processes[0]["pid"] != self.supervisor:
            self._processes, self.hosts = [], []  # of a supervisor that is no more

    def read_records(self) -> None:
        """Takes what was appended; everything when the file was cut off or replaced."""
        lines, is_whole = self._lines.new()
        if is_whole:
            self.last = {}
        for line in lines:
            self._take(json.loads(line), hash(line))

    def _take(self, record: dict[str, Any], identity: int) -> None:
        """Judges a record that is new; those before it in the file have been."""
        if identity not in self._seen:
            self._seen.add(identity)
            self.num_records += 1
            self.identity_violations += not harness.identity_holds(record)
            self.counters_backwards += harness.is_backwards(self.last, record)
            mixed = record.get("health/mixed_unrolls", 0)
            self.mixed_unrolls = max(self.mixed_unrolls, mixed)
            self._lateness.append(time.monotonic() - record["time_secs"])
            self._count_bad_data(record)
            self._measure_pause(record)
        self.last = record

    def _measure_pause(self, record: dict[str, Any]) -> None:
        updates, secs = self._updated
        if updates >= 0:
            self.learner_pause_secs = max(
                self.learner_pause_secs, record["time_secs"] - secs
            )
        if record["updates"] != updates:
            self._updated = record["updates"], record["time_secs"]

    def _count_bad_data(self, record: dict[str, Any]) -> None:
        """Counts discarded trajectories, and losses that are not numbers.

        One fault spoils an unroll; a policy that it made sick spoils all that follow.
        """
        self._recorders.add(self.supervisor)
        count = record.get("health/bad_data", 0)
        grew = count > (self.bad_data or 0)
        if "health/bad_data" in record:
            self.bad_data = max(count, self.bad_data or 0)
        # Without an update since the record before there is no lag either.
        no_number = "lag/mean" in record and "loss/total" not in record
        self.bad_records += grew or no_number

    def _heal(self) -> None:
        now = time.monotonic()
        for wound in list(self.wounds):
            if wound.healed(self):
                self.recovery_secs[wound.name].append(now - wound.since)
                self.wounds.remove(wound)
            elif now - wound.since > wound.patience_secs:
                secs = wound.patience_secs
                self.unhealed.append(f"{wound.name}: no recovery in {secs:g} s")
                self.wounds.remove(wound)

    def _count_descriptors(self) -> None:
        """Only while all is well: a restart opens and closes some."""
        states = [p["state"] for p in self._processes]
        if self.supervisor in self._recorders and all(s in ALIVE for s in states):
            with contextlib.suppress(OSError):
                count = len(os.listdir(f"/proc/{self.supervisor}/fd"))
                self._descriptors.setdefault(self.supervisor, []).append(count)


def is_ours(pid: int, token: str) -> bool:
    """Returns whether `pid` lives and inherited `token`, or one that begins so."""
    try:
        environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{TOKEN}={token}".encode() in environment


def processes(token: str) -> list[int]:
    """Returns all living processes with the token, also orphans."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if is_ours(pid, token)]


def temporary_files(folder: pathlib.Path) -> list[str]:
    """Returns temporary files that were neither finished nor removed."""
    names = [path.name for path in folder.rglob("*")]
    ends, begins = (".writing", ".tmp"), (".writing-",)
    return [n for n in names if n.endswith(ends) or n.startswith(begins)]


def torn_reads(folder: pathlib.Path) -> int:
    """Returns torn copies that a reader accepted; checksums show them."""
    logs = (folder / "logs").glob("*.log")
    sentence = "of the parameters is torn"
    return sum(log.read_text(errors="replace").count(sentence) for log in logs)
