"""Children end with their supervisor."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration

_PARENT = """
import multiprocessing, os, sys, time
from impala_mp.runtime import life_pipe
from tests.runtime import life_pipe_test

if __name__ == "__main__":
    life = life_pipe.LifePipe()
    context = multiprocessing.get_context("forkserver")
    for kind in ("sleep", "spin", "deaf"):
        process = context.Process(target=life_pipe_test.live, args=(life, kind))
        process.start()
        os.write(1, b"%d\\n" % process.pid)
    time.sleep(60.0)
"""


def live(life, kind):
    """A child that would not end by itself."""
    life.bind()
    if kind == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    os.write(1, b"bound\n")  # one call: two processes write to this pipe
    while True:
        if kind != "spin":
            time.sleep(60.0)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_children_die_with_their_supervisor(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )
    try:
        lines = [parent.stdout.readline().strip() for _ in range(6)]
        pids = [int(line) for line in lines if line != "bound"]
        assert len(pids) == 3
        assert all(map(_alive, pids))
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5.0
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
