"""Trainings in processes of their own, and what is true of their records."""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

_EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
_DEADLINE_SECS = 60.0


class Run:
    """A training in a process of its own."""

    def __init__(
        self, workdir, *overrides, config="catch.py", env=None, own_session=False
    ):
        self.workdir = pathlib.Path(workdir)
        self.output = self.workdir.with_suffix(".out")
        self.born = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "impala_mp.cli.train",
            f"--config={_EXPERIMENTS / config}",
            f"--workdir={workdir}",
            "--config.logging.interval_secs=0.2",
            *overrides,
        ]
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env={**os.environ, **(env or {})},
                start_new_session=own_session,
            )

    def processes(self, role=None):
        try:
            text = (self.workdir / "health.json").read_text()
        except FileNotFoundError:
            return []
        found = json.loads(text)["processes"]
        return [p for p in found if p["pid"] and role in (None, p["role"])]

    def metrics(self):
        path = self.workdir / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def text(self):
        return self.output.read_text()

    def until(self, condition):
        """Waits for a condition, with a deadline."""
        deadline = time.monotonic() + _DEADLINE_SECS
        while time.monotonic() < deadline:
            result = None
            with contextlib.suppress(IndexError):  # of no record yet
                result = condition()
            if result:
                return result
            assert self.process.poll() is None, self.text()
            time.sleep(0.05)
        raise AssertionError(f"never held:\n{self.text()}")

    def until_running(self, role="actor"):
        return self.until(
            lambda: [
                p
                for p in self.processes(role)
                if p["state"] not in ("not_started", "starting", "resetting")
            ]
        )

    def until_all_run(self):
        """Both actors."""
        return self.until(lambda: len(found := self.until_running()) == 2 and found)

    def wait(self):
        return self.process.wait(_DEADLINE_SECS)


LONG = "--config.total_agent_steps=100000000"


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state[0] not in "ZX"


def wait_dead(pids, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.02)
    return [pid for pid in pids if alive(pid)]


def identity_holds(record):
    return record["health/committed"] == (
        record["health/learned"]
        + record["health/discarded"]
        + record["health/in_flight"]
    )


_COUNTERS = (
    *("agent_steps", "env_frames", "updates", "time_secs", "episode/count"),
    *(f"health/{name}" for name in ("committed", "learned", "discarded", "restarts")),
    *(f"health/{name}" for name in ("bad_data", "updates_skipped", "drift_alarms")),
)


def never_backwards(records):
    """Whether no counter is ever less than in the record before."""
    pairs = itertools.pairwise(records)
    return all(a[name] <= b[name] for a, b in pairs for name in _COUNTERS)


def fork_server(run):
    """The parent of the learner."""
    stat = pathlib.Path(f"/proc/{run.until_running('learner')[0]['pid']}/stat")
    return int(stat.read_text().rsplit(")", 1)[1].split()[1])


def status(run):
    command = [sys.executable, "-m", "impala_mp.cli.status", str(run.workdir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def fill(folder):
    with open(folder / "filler", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**12))
        except OSError:
            return
