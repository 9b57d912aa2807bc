"""Flags of trainings in processes of their own, and what tests do to them."""

import signal
import subprocess
import sys

import harness
from impala_mp.storage import episodes

LONG = "--config.total_agent_steps=100000000"


def fork_server(run):
    """The parent of the learner."""
    return harness.parent(run.until_running("learner")[0]["pid"])


def stop_and_count(run):
    """Stops a run; returns its records, in which no trajectory or game is lost."""
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    records = run.records()
    assert all(map(harness.identity_holds, records))
    assert harness.never_backwards(records)
    rows = episodes.read(str(run.workdir))["return"]
    assert len(rows) == records[-1]["episode/count"] > 0
    return records


def status(run, *flags):
    command = [sys.executable, "-m", "impala_mp.cli.status", str(run.workdir), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def fill(folder):
    """Writes to a file system until it is full."""
    with open(folder / "filler", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**12))
        except OSError:
            return
