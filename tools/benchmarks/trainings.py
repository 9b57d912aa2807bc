"""Subjects that start real trainings: train, health, start, learn, memory."""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import harness
from benchmarks import context as context_lib
from impala_mp.config import container_limits

ENDLESS = "--config.total_agent_steps=1000000000"
# No drift detector, no checkpoints but the last, the supervisor looks up rarely.
_NO_EVALUATIONS = "--config.evaluation.during_training=False"
_HARDLY_WATCHED = [
    "--config.logging.episodes=False",
    "--config.health.drift_interval=0",
    "--config.checkpoint.interval_secs=1000000",
    "--config.logging.interval_secs=5",
]
WARM_UP_SECS = 10.0  # of training, not counted
_START_SECS = 120.0  # until the first update at the latest
_DEVICE = "learner's GPU"  # beside the processes, in `memory`

Answer = tuple[context_lib.Rows, context_lib.Ratios]


@contextmanager
def started(flags: list[str]) -> Iterator[harness.Training]:
    with tempfile.TemporaryDirectory() as folder:
        run = harness.Training(pathlib.Path(folder) / "run", flags)
        try:
            yield run
        finally:
            run.stop()


def _ideal(context: context_lib.Context) -> float:
    """Agent steps a second, if nothing but the parts took time."""
    results, cores = context.results, container_limits.num_cores()
    envs = context.config.actors.environments
    learning = results["learner/resident batch"]["median"]
    if context.device.type == "cuda":
        return min(results["environment/of all cores at once"]["median"], learning)
    environment = 1.0 / results["environment/of one core"]["median"]
    inference = 1e-6 * results[f"inference/batch {envs}"]["median"]
    return cores / (environment + inference + 1.0 / learning)


def train(context: context_lib.Context) -> Answer:
    """Needs the subjects environment, inference and learner before it."""
    ideal = _ideal(context)
    quarters, last = _rates(context.flags, context.options.train_secs, 4)
    shares = {k: v for k, v in last.items() if k.startswith("time/")}
    training = context_lib.summary(quarters, "agent steps/s")
    frames = context.environment.frames_per_step
    rows = {
        "ideal": context_lib.summary([ideal], "agent steps/s"),
        "training": training,
        "training, frames": context_lib.scaled(training, frames, "frames/s"),
    }
    mean = sum(quarters) / len(quarters)
    return rows, {"efficiency": mean / ideal, **shares}


def _rates(
    flags: list[str], secs: float, parts: int
) -> tuple[list[float], dict[str, Any]]:
    """Agent steps/s of each part of `secs` of training, and the last record."""
    rates = []
    with started([*flags, ENDLESS]) as run:
        run.until(run.records, _START_SECS)
        first = run.until(later_than(run, WARM_UP_SECS), _START_SECS)
        for _ in range(parts):
            after = later_than(run, first["time_secs"] + secs / parts)
            last = run.until(after, secs + _START_SECS)
            steps = last["agent_steps"] - first["agent_steps"]
            rates.append(steps / (last["time_secs"] - first["time_secs"]))
            first = last
    return rates, last


def health(context: context_lib.Context) -> Answer:
    """Training as by default, without evaluations, and hardly watched, in turn."""
    kinds = {
        "evaluated": [],
        "watched": [_NO_EVALUATIONS],
        "hardly watched": [_NO_EVALUATIONS, *_HARDLY_WATCHED],
    }
    values: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(context.options.repeats):
        for name, flags in kinds.items():
            secs = context.options.train_secs
            rates, _last = _rates([*context.flags, *flags], secs, 1)
            values[name] += rates
    rows = {k: context_lib.summary(v, "agent steps/s") for k, v in values.items()}
    evaluated, watched, hardly = values.values()
    return rows, {
        "watched_over_hardly": _median_ratio(watched, hardly),
        "evaluated_over_watched": _median_ratio(evaluated, watched),
    }


def _median_ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(
        one / other for one, other in zip(ones, others, strict=True)
    )


def later_than(run: harness.Training, secs: float) -> Callable[[], Any]:
    def newest() -> Any:
        last = run.records()[-1]
        return last if last["time_secs"] > secs else None

    return newest


def start(context: context_lib.Context) -> Answer:
    """Measures commands from launch: to a training's first update, and an evaluation.

    The update is seen in metrics.jsonl, up to 0.15 s later. The evaluation plays 100
    games.
    """
    updated, evaluated = [], []
    flags = [*context.flags, ENDLESS, "--config.logging.interval_secs=0.1"]
    for _ in range(context.options.repeats):
        with started(flags) as run:
            run.until(run.records, _START_SECS)
            updated.append(time.monotonic() - run.born)
            run.stop()
            evaluated.append(_evaluation_secs(run.workdir))
    rows = {
        "to the first update": context_lib.summary(updated, "s"),
        "impala-eval, 100 games": context_lib.summary(evaluated, "s"),
    }
    return rows, {}


def _evaluation_secs(workdir: pathlib.Path) -> float:
    command = [sys.executable, "-m", "impala_mp.cli.evaluate", str(workdir)]
    born = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - born


def learn(context: context_lib.Context) -> Answer:
    """Measures the time from launch until 100 games have the target's mean return."""
    secs, steps = [], []
    for seed in range(context.options.seeds):
        flags = [
            *context.flags,
            f"--config.seed={seed}",
            "--config.logging.interval_secs=0.2",
        ]
        with started(flags) as run:
            found = run.until(_reached(run, context.options.target_return), 3600.0)
            secs.append(time.monotonic() - run.born)
            steps.append(float(found["agent_steps"]))
    rows = {
        "from launch": context_lib.summary(secs, "s"),
        "agent steps": context_lib.summary(steps, "agent steps"),
    }
    return rows, {"worst_secs": max(secs), "worst_agent_steps": max(steps)}


def _reached(run: harness.Training, target: float) -> Callable[[], Any]:
    def first() -> Any:
        good = (
            r
            for r in run.records()
            if r.get("episode/count", 0) >= 100 and r["episode/return_mean"] >= target
        )
        return next(good, None)

    return first


def memory(context: context_lib.Context) -> Answer:
    """Memory and descriptors of each process and of the GPU, early and late."""
    updates = context.options.updates
    with started([*context.flags, ENDLESS]) as run:
        run.until(_beyond(run, updates // 10), 3600.0)
        early = _footprints(run)
        run.until(_beyond(run, updates), 36000.0)
        late = _footprints(run)
    late = {name: late[name] for name in late if name in early}  # not what came later
    rows = {
        f"{name}, {unit}": context_lib.summary([early[name][unit], now[unit]], unit)
        for name, now in late.items()
        for unit in now
    }
    processes = [name for name in late if name != _DEVICE]
    grown = {name: late[name]["MiB"] / early[name]["MiB"] for name in late}
    ratios = {
        "memory_growth": max(grown[name] for name in processes),
        "descriptors_growth": max(
            late[n]["descriptors"] - early[n]["descriptors"] for n in processes
        ),
    }
    if _DEVICE in late:
        ratios["device_memory_growth"] = grown[_DEVICE]
    return rows, ratios


def _beyond(run: harness.Training, updates: int) -> Callable[[], bool]:
    return lambda: run.records()[-1]["updates"] >= updates


def _footprints(run: harness.Training) -> dict[str, dict[str, float]]:
    found = {}
    for process in run.processes():
        name, pid = f"{process['role']} {process['index']}", process["pid"]
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        kib = int(status.split("VmRSS:")[1].split()[0])
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        found[name] = {"MiB": kib / 1024, "descriptors": float(descriptors)}
    device_mib = run.records()[-1].get("memory/device_mib")  # not there without a GPU
    if device_mib:
        found[_DEVICE] = {"MiB": device_mib}
    return found
