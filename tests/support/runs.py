"""Flags of trainings in processes of their own, and what tests do to them."""

import subprocess
import sys

import harness

LONG = "--config.total_agent_steps=100000000"


def fork_server(run):
    """The parent of the learner."""
    return harness.parent(run.until_running("learner")[0]["pid"])


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
