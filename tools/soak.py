"""A long training with kills, and whether anything grew: memory, descriptors, files.

    python tools/soak.py --minutes=120 [--seed=0] [--workdir=DIR] [--json]

Catch, without end. All the time actors (but the first) and the evaluator are killed;
the learner too, until half-time: what is measured in the second half is the growth of
processes that lived through it. The last line is JSON; the exit code is 0 on pass, 1
on fail, 2 on bad arguments.
"""

import argparse
import json
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from faults import run as run_lib, verdict

_CATCH = pathlib.Path(__file__).resolve().parents[1] / "experiments" / "catch.py"
_SETTINGS = {
    "total_agent_steps": 10**12,
    "health.checksums": "true",
    "health.max_restarts.actor": 10**6,
    "health.max_restarts.learner": 10**6,
    "health.max_restarts.evaluator": 10**6,
    "health.max_failed_starts": 10**6,  # killed while it starts
    "evaluation.interval_steps": 100_000,
    "logging.interval_secs": 2,
}
_SAMPLE_SECS = 5.0
_GAPS_SECS = {"actor": 10.0, "evaluator": 60.0, "learner": 240.0}  # between kills
_TOLERANCE = 0.01  # growth, of the level, that is never called growth
_TARGET = 0.9  # the final return


class Soak:
    """Kills on time, samples on time."""

    def __init__(self, run: run_lib.Run, seed: int) -> None:
        self._run, self._rng = run, random.Random(seed)
        self.kills = dict.fromkeys(_GAPS_SECS, 0)
        self.samples: list[tuple[float, dict[str, float]]] = []

    def last(self, seconds: float) -> None:
        start = time.monotonic()
        due = {role: start + gap for role, gap in _GAPS_SECS.items()}
        next_sample = start
        while (now := time.monotonic()) < start + seconds:
            self._run.until(lambda: True, "life")
            for role in [r for r, at in due.items() if at <= now]:
                due[role] = now + self._rng.uniform(0.5, 1.5) * _GAPS_SECS[role]
                if role != "learner" or now < start + seconds / 2:
                    self._kill(role)
            if next_sample <= now:
                next_sample = now + _SAMPLE_SECS
                self.samples.append((now - start, self._sample()))

    def _kill(self, role: str) -> None:
        seats = [
            s for s in self._run.watch.seats(role) if s["index"] or role != "actor"
        ]
        if not seats:
            return  # between two lives
        seat = self._rng.choice(seats)
        self._run.wound(role, seat)
        self._run.signal(seat["pid"], signal.SIGKILL)
        self.kills[role] += 1

    def _sample(self) -> dict[str, float]:
        """Returns the pids of supervisor, learner and actor 0, if they live."""
        found: dict[str, float] = {}
        for role in ("supervisor", "learner", "actor"):
            seats = [s for s in self._run.watch.seats(role) if s["index"] in (None, 0)]
            for seat in seats:
                for name, value in measure(seat["pid"]):
                    found[f"{role}.{name}"] = value
        return found


def measure(pid: int) -> Iterator[tuple[str, float]]:
    """Private memory, shared memory (both MiB) and open files of one process."""
    folder = pathlib.Path(f"/proc/{pid}")
    try:
        status = (folder / "status").read_text()
        maps = (folder / "maps").read_text()
        descriptors = len(list((folder / "fd").iterdir()))
    except OSError:
        return  # it has just died
    private = re.search(r"RssAnon:\s+(\d+) kB", status)
    if private is None:
        return  # a zombie
    ends = re.findall(r"^(\w+)-(\w+) .*memfd:", maps, re.MULTILINE)
    yield "memory_mib", int(private[1]) / 2**10
    yield "shared_mib", sum(int(b, 16) - int(a, 16) for a, b in ends) / 2**20
    yield "descriptors", float(descriptors)


def growth(samples: list[tuple[float, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Fits a line to the second half by least squares: level, growth and noise."""
    late = [(t, found) for t, found in samples if t >= samples[-1][0] / 2]
    table = {}
    for name in sorted({name for _, found in late for name in found}):
        points = np.array([(t, f[name]) for t, f in late if name in f])
        if len(points) < 2:
            continue  # no line
        time_secs, values = points.T
        slope, start = np.polyfit(time_secs, values, 1)
        noise = float(np.std(values - (slope * time_secs + start)))
        grown = float(slope * (time_secs[-1] - time_secs[0]))
        level = float(np.mean(values))
        table[name] = {
            "level": round(level, 2),
            "growth": round(grown, 3),
            "noise": round(noise, 3),
            "flat": grown <= max(_TOLERANCE * level, noise),
        }
    return table


def judge(report: dict[str, Any], problems: list[str]) -> list[str]:
    reasons = [
        f"{name} grew by {row['growth']} in the second half, from about {row['level']}"
        for name, row in report["growth"].items()
        if not row["flat"]
    ]
    for name in verdict.MUST_BE_ZERO:
        if report[name]:
            reasons.append(f"{name}: {report[name]}")
    if report["temporary_files"]:
        reasons.append(f"temporary_files: {report['temporary_files']}")
    final = report["final_return"]
    if final is None or final < _TARGET:
        reasons.append(f"the final return is {final}, below {_TARGET}")
    return [*problems, *reasons]


def _train(run: run_lib.Run, test: Soak, seconds: float) -> None:
    """Trains under kills; a failure is one of the run's problems."""
    try:
        run.start(_SETTINGS["total_agent_steps"])
        run.until(lambda: run.watch.num_records, "record")
        test.last(seconds)
        run.settle()
        run.stop()
    except run_lib.RunFailedError as error:
        run.problems.append(str(error))


def soak(minutes: float, seed: int, base: pathlib.Path) -> dict[str, Any]:
    """One run in the folder `base`, and the verdict on it."""
    flags = [f"--config.{k}={v}" for k, v in {**_SETTINGS, "seed": seed}.items()]
    run = run_lib.Run(base, [f"--config={_CATCH}", *flags], "checkpoints")
    test = Soak(run, seed)
    try:
        _train(run, test, 60.0 * minutes)
        run.watch.look()
        found = verdict.examine(run.folder)
    finally:
        run.close()
        with open(base / "samples.json", "w") as file:
            json.dump(test.samples, file)
    report = {
        "minutes": minutes,
        "kills": test.kills,
        "agent_steps": run.watch.last.get("agent_steps"),
        "growth": growth(test.samples),
        **found,
        "identity_violations": run.watch.identity_violations,
        "counters_backwards": run.watch.counters_backwards,
        "mixed_unrolls": run.watch.mixed_unrolls,
    }
    reasons = judge(report, [*run.problems, *run.watch.unhealed])
    return {"verdict": "fail" if reasons else "pass", "reasons": reasons, **report}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=120.0, help="that it lasts (120)")
    add("--seed", type=int, default=0, help="of the kills and of the training")
    add("--workdir", type=pathlib.Path, help="to keep; else a temporary folder")
    add("--json", action="store_true", help="the JSON line only")
    options = parser.parse_args()
    if not 0.0 < options.minutes < 10**5:
        parser.error(f"--minutes={options.minutes} must be above 0")
    if options.seed < 0:
        parser.error(f"--seed={options.seed} must be at least 0")
    if options.workdir and options.workdir.exists():
        parser.error(f"--workdir={options.workdir} is there already: name another")
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    base = pathlib.Path(options.workdir or tempfile.mkdtemp(prefix="impala-soak-"))
    base = base.resolve()
    base.mkdir(parents=True, exist_ok=True)
    report = soak(options.minutes, options.seed, base)
    if report["verdict"] == "pass" and not options.workdir:
        shutil.rmtree(base)
    if not options.json:
        verdict.show(report)
    print(json.dumps(report))
    sys.exit(report["verdict"] != "pass")


if __name__ == "__main__":
    main()
