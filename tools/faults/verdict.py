"""Criteria for a run under faults, and the verdict."""

import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import harness
from faults import run as run_lib, watch as watch_lib
from impala_mp.storage import snapshot_file

_MAX_LEFT = {
    "processes": 0,
    "shared_memory": 0,
    "descriptors": 2,  # growth of a supervisor's: what is open just now
    "temporary_files": 0,
}
MUST_BE_ZERO = (
    "torn_reads",
    "identity_violations",
    "counters_backwards",
    "mixed_unrolls",  # that more than one version of the parameters acted in
    "damaged_snapshots",  # of a league
)
_MAX_BAD_RECORDS = 3  # for each NaN that an environment gave
_MIN_NAN_FAULTS = 5  # fewer may all have died with their actors
_MIN_FAULTS_PER_MINUTE = 20
_MAX_MEDIAN_SECS = {"actor": 1.0, "learner": 10.0}  # from a kill to work done


def examine(folder: pathlib.Path, against: str = "") -> dict[str, Any]:
    """Checks the folder of a finished run, and its games, `against` an opponent."""
    audit = watch_lib.Watch(folder)
    audit.read_records()
    return {
        "trajectories": harness.trajectories(audit.last) if audit.last else None,
        "torn_reads": watch_lib.torn_reads(folder),
        "torn_reads_retried": audit.last.get("health/torn_reads_retried"),
        "identity_violations": audit.identity_violations,
        "counters_backwards": audit.counters_backwards,
        "mixed_unrolls": audit.mixed_unrolls,
        "temporary_files": len(watch_lib.temporary_files(folder)),
        "damaged_snapshots": _damaged_snapshots(folder / snapshot_file.FOLDER),
        "final_return": _evaluated(folder, against),
    }


def _damaged_snapshots(folder: pathlib.Path) -> int:
    damaged = 0
    for version in snapshot_file.versions(str(folder)):
        try:
            snapshot_file.read(str(folder), version)
        except snapshot_file.Damaged:
            damaged += 1
    return damaged


def _evaluated(folder: pathlib.Path, against: str) -> float | None:
    """The mean of 100 games by impala-eval; None if it fails."""
    command = [sys.executable, "-m", "impala_mp.cli.evaluate", f"--workdir={folder}"]
    opponent = [f"--against={against}"] if against else []
    done = subprocess.run(
        [*command, "--episodes=100", *opponent],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": run_lib.python_path()},
    )
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])["mean"]


def report(
    run: run_lib.Run,
    told: dict[str, Any],
    segments: set[str],
    target: float | None,
    against: str = "",
) -> dict[str, Any]:
    """All that is judged; `segments`: what /dev/shm held before."""
    watch, found = run.watch, examine(run.folder, against)
    for name in ("identity_violations", "counters_backwards", "mixed_unrolls"):
        found[name] = max(found[name], getattr(watch, name))  # with what was rewound
    leftovers = {
        "processes": len(watch_lib.processes(run.token)),
        "shared_memory": len(set(os.listdir("/dev/shm")) - segments),
        "descriptors": watch.descriptors(),
        "temporary_files": found.pop("temporary_files"),
        "temporary_folders": len(os.listdir(run.temporary)),
    }
    return {
        **told,
        **found,
        "bad_data": watch.bad_data,
        "bad_records": watch.bad_records,
        "leftovers": leftovers,
        "target": target,
    }


def judge(report: dict[str, Any], problems: list[str]) -> list[str]:
    """Why the run has failed; nothing if it has not."""
    left = report["leftovers"]
    counts = {name: report[name] for name in MUST_BE_ZERO}
    counts |= {name: left[name] for name in _MAX_LEFT}
    reasons = [
        f"{name}: {count}, where {_MAX_LEFT.get(name, 0)} is the most"
        for name, count in counts.items()
        if count > _MAX_LEFT.get(name, 0)
    ]
    final, target = report["final_return"], report["target"]
    if final is None or not math.isfinite(final):
        reasons.append("the final evaluation gave no return")
    elif target is not None and final < target:
        reasons.append(f"the final return is {final:.3f}, below {target}")
    return [*problems, *reasons, *_judge_nans(report), *_judge_rain(report)]


def _judge_rain(report: dict[str, Any]) -> list[str]:
    """Checks the number of faults and their cost."""
    rate = 0 if report["only"] else _MIN_FAULTS_PER_MINUTE
    least = max(1, int(rate * report["minutes"]))
    reasons = [
        f"the median recovery of a killed {role} took {secs} s, where less than"
        f" {_MAX_MEDIAN_SECS[role]} is due"
        for role, limit in _MAX_MEDIAN_SECS.items()
        if (secs := report["recovery_secs"].get(role, {}).get("median", 0.0)) >= limit
    ]
    if report["faults_in_all"] < least:
        reasons.append(f"{report['faults_in_all']} faults, where {least} are the least")
    return reasons


def _judge_nans(report: dict[str, Any]) -> list[str]:
    faults = report["faults"]
    nans = sum(count for kind, count in faults.items() if "_nan_" in kind)
    reasons = []
    if nans >= _MIN_NAN_FAULTS and report["bad_data"] == 0:
        reasons.append(f"{nans} faults were NaN, and health/bad_data counts none")
    if report["bad_records"] > _MAX_BAD_RECORDS * nans:
        reasons.append(
            f"{nans} faults were NaN, and {report['bad_records']} records report bad"
            " data: a fault was not repaired"
        )
    return reasons


def show(report: dict[str, Any]) -> None:
    """Prints a table; nested values get a line a part."""
    for name, value in report.items():
        if isinstance(value, dict):
            print(f"{name}")
            for part, inner in value.items():
                text = inner if not isinstance(inner, dict) else _pairs(inner)
                print(f"  {part:<28} {text}")
        elif isinstance(value, list):
            print("\n  ".join([name, *(value or ["none"])]))
        else:
            print(f"{name:<30} {value}")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
