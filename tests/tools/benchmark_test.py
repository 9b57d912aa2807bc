"""The benchmark's own bookkeeping: what it counts, and that it leaves nobody behind."""

import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest

_TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """A module of tools/, by name."""
    monkeypatch.syspath_prepend(str(_TOOLS))
    return importlib.import_module


class _Run:
    """A training of one process, whose GPU memory grows."""

    def __init__(self, device_mib):
        self._device_mib = iter(device_mib)

    def until(self, condition, secs):
        assert condition([{"updates": 1000}])
        now = next(self._device_mib)
        self._record = {"updates": 1000, **({"memory/device_mib": now} if now else {})}

    def records(self):
        return [{"updates": 1}, self._record]

    def health(self):
        return [{"role": "learner", "index": 0, "pid": os.getpid()}]


@pytest.mark.parametrize("device_mib", [(None, None), (100.0, 125.0)])
def test_memory_of_the_gpu_is_watched_where_there_is_one(monkeypatch, tool, device_mib):
    bench_runs = tool("bench_runs")
    run = contextlib.nullcontext(_Run(device_mib))
    monkeypatch.setattr(bench_runs, "_run", lambda flags: run)
    options = types.SimpleNamespace(updates=1000)
    context = types.SimpleNamespace(flags=[], options=options)
    rows, ratios = bench_runs.memory(context)
    assert {"learner 0, MiB", "learner 0, descriptors"} <= rows.keys()
    assert ratios["memory_growth"] >= 0.9
    assert ratios["descriptors_growth"] == 0
    assert ratios.get("device_memory_growth") == (1.25 if device_mib[0] else None)
    assert ("learner's GPU, MiB" in rows) is bool(device_mib[0])


def test_a_benchmark_that_is_told_to_end_ends_its_training(tool):
    chaos_watch, token = tool("chaos_watch"), f"benchmark-{os.getpid()}"
    command = [sys.executable, str(_TOOLS / "benchmark.py"), "memory"]
    process = subprocess.Popen(
        [*command, "--config=experiments/catch.py", "--updates=1000000"],
        env={**os.environ, chaos_watch.TOKEN: token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=_TOOLS.parent,
    )
    try:
        end = time.monotonic() + 120.0
        while len(chaos_watch.processes(token)) < 4 and time.monotonic() < end:
            time.sleep(0.1)  # itself, the supervisor, its servers, the children
        assert len(chaos_watch.processes(token)) >= 4
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        while chaos_watch.processes(token) and time.monotonic() < end:
            time.sleep(0.1)
        assert chaos_watch.processes(token) == []
    finally:
        for pid in chaos_watch.processes(token):
            os.kill(pid, signal.SIGKILL)
