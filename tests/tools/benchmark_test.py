"""The benchmark's own bookkeeping: what it counts, and that it leaves nobody behind."""

import contextlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest

import benchmark
from benchmarks import (
    context as context_lib,
    kernels,
    parts,
    trainings,
    transport,
)
from faults import watch
from impala_mp.config import container_limits
from impala_mp.runtime import calibration
from tests.support import builders

_TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
_CATCH = _TOOLS.parent / "experiments" / "catch.py"


def test_a_flag_may_have_one_dash(monkeypatch, capsys):
    """Trainings get all flags of the config, as the parts do, and no other config."""
    contexts = []

    def subject(context):
        contexts.append(context)
        return {}, {}

    flags = [f"-config={_CATCH}", "--config.batch_size=8", "-config.unroll_length=7"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "row", "-json", *flags])
    monkeypatch.setattr(benchmark, "_functions", lambda: {"row": subject})
    benchmark._benchmark()
    (context,) = contexts
    assert context.config.unroll_length == 7
    assert context.config.environment.id == "Catch"
    assert context.flags == [f"--{flag.lstrip('-')}" for flag in flags]
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["config"] == f"--config={_CATCH}"


def test_ideal_and_machine_are_those_of_a_container(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(container_limits, "_quotas", lambda: [2.0])
    config = builders.config()
    monkeypatch.setattr(benchmark, "_CONFIG", types.SimpleNamespace(value=config))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--config=A.py", "--config=B.py"])
    machine = benchmark._machine()
    assert (machine["cores"], machine["config"]) == (2, "--config=B.py")
    medians = {
        "learner/resident batch": 100.0,  # agent steps/s
        "environment/of one core": 100.0,
        "inference/batch 3": 1e4,  # µs
    }
    context = types.SimpleNamespace(
        config=config,
        device=types.SimpleNamespace(type="cpu"),
        results={name: {"median": value} for name, value in medians.items()},
    )
    assert trainings._ideal(context) == pytest.approx(2 / 0.03)


def test_the_median_of_an_even_number_is_between_the_middle_two():
    assert trainings._median_ratio([1.0, 2.0, 4.0, 9.0], [1.0] * 4) == 3.0


class _Run:
    """A training of one process, whose GPU memory grows."""

    def __init__(self, device_mib):
        self._device_mib = iter(device_mib)

    def until(self, condition, secs):
        now = next(self._device_mib)
        self._record = {"updates": 1000, **({"memory/device_mib": now} if now else {})}
        assert condition()

    def records(self):
        return [{"updates": 1}, self._record]

    def processes(self):
        return [{"role": "learner", "index": 0, "pid": os.getpid()}]


@pytest.mark.parametrize("device_mib", [(None, None), (100.0, 125.0)])
def test_memory_of_the_gpu_is_watched_where_there_is_one(monkeypatch, device_mib):
    run = contextlib.nullcontext(_Run(device_mib))
    monkeypatch.setattr(trainings, "started", lambda flags: run)
    options = types.SimpleNamespace(updates=1000)
    context = types.SimpleNamespace(flags=[], options=options)
    rows, ratios = trainings.memory(context)
    assert {"learner 0, MiB", "learner 0, descriptors"} <= rows.keys()
    assert ratios["memory_growth"] >= 0.9
    assert ratios["descriptors_growth"] == 0
    assert ratios.get("device_memory_growth") == (1.25 if device_mib[0] else None)
    assert ("learner's GPU, MiB" in rows) is bool(device_mib[0])


@pytest.mark.parametrize(
    "subject",
    [
        *(parts.vtrace, parts.environment, parts.inference, parts.actor_loop),
        *(parts.learn_batch, parts.learned_row),
        *(transport.transport, transport.parameters, kernels.kernels),
    ],
)
def test_each_subject_has_its_rows_and_ratios(monkeypatch, subject):
    def once(self, call, secs):
        call()
        return 1e-3

    monkeypatch.setattr(context_lib.Context, "seconds_a_call", once)
    monkeypatch.setattr(parts, "_eager_secs", lambda context: 1e-3)
    monkeypatch.setattr(calibration, "_SECS", 0.001)
    monkeypatch.setattr(transport, "_SECS", 0.05)
    monkeypatch.setattr(parts, "EMULATED_SECS", 0.05)
    automatic = {"learner.precision": "auto", "inference.precision": "auto"}
    config = builders.config(batch_size=4, **{"actors.environments": 4, **automatic})
    options = context_lib.Options(1, 0.0, 0, 0.0, 0)
    rows, ratios = subject(context_lib.Context(config, [], options))
    assert rows
    assert all(row["min"] <= row["median"] <= row["max"] for row in rows.values())
    assert all(math.isfinite(ratio) for ratio in ratios.values())


@pytest.mark.integration
def test_starts_of_real_commands_are_timed():
    flags = [f"--config={_TOOLS.parent}/experiments/catch.py"]
    options = types.SimpleNamespace(repeats=1)
    rows, _ = trainings.start(types.SimpleNamespace(flags=flags, options=options))
    assert list(rows) == ["to the first update", "impala-eval, 100 games"]
    assert all(0.0 < row["median"] < math.inf for row in rows.values())


@pytest.mark.integration
def test_a_benchmark_that_is_told_to_end_ends_its_training():
    token = f"benchmark-{os.getpid()}"
    command = [sys.executable, str(_TOOLS / "benchmark.py"), "memory"]
    process = subprocess.Popen(
        [*command, "--config=experiments/catch.py", "--updates=1000000"],
        env={**os.environ, watch.TOKEN: token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=_TOOLS.parent,
    )
    try:
        end = time.monotonic() + 120.0
        while len(watch.processes(token)) < 4 and time.monotonic() < end:
            time.sleep(0.1)  # itself, the supervisor, its servers, the children
        assert len(watch.processes(token)) >= 4
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        while watch.processes(token) and time.monotonic() < end:
            time.sleep(0.1)
        assert watch.processes(token) == []
    finally:
        for pid in watch.processes(token):
            os.kill(pid, signal.SIGKILL)
