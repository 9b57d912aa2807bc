"""Runs experiments with several seeds each, and draws and tabulates them together.

    python tools/study.py --output=runs/study [--seeds=3] [--jobs=1] [--target=RETURN]
        EXPERIMENT.py[:VARIANT] [...] [--config.FIELD=VALUE ...]

A run that is there already is not repeated, one that was stopped goes on. Writes
DIR/curves.png and DIR/results.json, and prints the table: the final evaluation of each
seed (100 full games), and the agent steps after which the last 100 games of training
first had the target's mean return.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from impala_mp import curves, metrics, workdir


def _folder(output: pathlib.Path, experiment: str, seed: int) -> pathlib.Path:
    path, _, variant = experiment.partition(":")
    stem = pathlib.Path(path).stem
    return output / (f"{stem}-{variant}" if variant else stem) / str(seed)


def _call(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"impala_mp.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _run(folder: pathlib.Path, experiment: str, seed: int, flags: list[str]) -> float:
    """Trains, unless that has been done; the mean return of 100 games."""
    result = folder / "evaluation.json"
    if not result.exists():
        run = [f"--config={experiment}", f"--workdir={folder}"]
        _call("train", *run, f"--config.seed={seed}", *flags)
        line = _call("evaluate", f"--workdir={folder}", "--episodes=100").splitlines()[
            -1
        ]
        config = workdir.read_config(str(folder))
        if json.loads(line)["agent_steps"] < config.total_agent_steps:
            raise RuntimeError(f"{folder} was stopped: the same command goes on.")
        result.write_text(line + "\n")
    mean: float = json.loads(result.read_text())["mean"]
    print(f"{folder}: {mean:.2f}", flush=True)
    return mean


def _steps_to(folder: pathlib.Path, target: float) -> int | None:
    """Agent steps at which the last 100 games first had that mean; None: never."""
    for record in metrics.read(str(folder)):
        enough = record.get("episode/count", 0) >= 100
        if enough and record["episode/return_mean"] >= target:
            return int(record["agent_steps"])
    return None


def _row(
    folders: list[pathlib.Path], returns: list[float], target: float | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"returns": returns, "mean": statistics.fmean(returns)}
    if target is not None:
        row["steps_to_target"] = [_steps_to(folder, target) for folder in folders]
    return row


def _show(name: str, row: dict[str, Any]) -> None:
    returns = ", ".join(f"{value:.2f}" for value in row["returns"])
    text = f"{name:<32} {row['mean']:8.2f}  ({returns})"
    if "steps_to_target" in row:
        steps = ("never" if n is None else f"{n:,}" for n in row["steps_to_target"])
        text += f"  steps to target: {', '.join(steps)}"
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT.py[:VARIANT]")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3, help="of each experiment (3)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--target", type=float, help="a mean return")
    flags = [a for a in sys.argv[1:] if a.startswith("--config.")]
    rest = [a for a in sys.argv[1:] if not a.startswith("--config.")]
    options = parser.parse_args(rest)
    jobs = [(e, s) for s in range(options.seeds) for e in options.experiments]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        means = list(
            pool.map(lambda job: _run(_folder(options.output, *job), *job, flags), jobs)
        )
    groups, rows = {}, {}
    for experiment in options.experiments:
        mine = [i for i, (name, _) in enumerate(jobs) if name == experiment]
        folders = [_folder(options.output, *jobs[i]) for i in mine]
        name = folders[0].parent.name
        groups[name] = [str(folder) for folder in folders]
        rows[name] = _row(folders, [means[i] for i in mine], options.target)
        _show(name, rows[name])
    curves.plot(groups, str(options.output / "curves.png"))
    (options.output / "results.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
