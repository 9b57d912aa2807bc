"""Runs experiments with several seeds each, and draws and tabulates them together.

    python tools/study.py --output=runs/study [--seeds=3] [--jobs=1] [--target=RETURN]
        [--x=FIELD [--lines=FIELD]] [--checkpoint=best]
        [--page=FILE.md [--scores=FILE.json]]
        EXPERIMENT.py[:VARIANT] [...] [--config.FIELD=VALUE ...]

A run that is there already is not repeated, one that was stopped goes on; a result of
another config is refused. Writes DIR/curves.png, DIR/curves.svg and DIR/results.json,
and prints the table: the final evaluation of each seed (100 full games), with mean and
standard deviation over seeds; the mean policy lag of each run; and the agent steps
after which the last 100 games of training first had the target's mean return. All runs
are read for that at the same agent steps, as far apart as the records of the sparsest
one.

--page=docs/results/NAME.md writes a page: interquartile means with bootstrap intervals,
learning curves, wall-clock, core-hours, machine and commit. With --scores=FILE.json,
which has two reference scores for each experiment, also a performance profile and the
mean over all of them.

With --x, DIR/against.png has the final returns against that field of the config, for
instance --x=actors.policy_delay, a line for each value of the field --lines.
"""

import argparse
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import numpy as np

import study_page
from impala_mp import errors
from impala_mp.cli import command_line
from impala_mp.config import base, container_limits, fields as fields_lib
from impala_mp.monitoring import curves, run_history
from impala_mp.storage import checkpoint as checkpoint_lib, files, workdir

_RETURN, _COUNT = "episode/return_mean", "episode/count"
_CHOSEN = (*base.AUTOMATIC, "learner.threads")  # by calibration, where 0
_AUTO = "auto"  # devices and precisions that a run chooses
_NO_GAME = re.compile(r"^Final evaluation: none; (.*)$", re.MULTILINE)


class _Run(NamedTuple):
    """One seed of an experiment."""

    folder: pathlib.Path
    flags: list[str]  # of impala-train
    config: Any  # that they give
    checkpoint: str = "newest"  # that is evaluated


def _make_run(output: pathlib.Path, experiment: str, seed: int, flags: Any) -> _Run:
    path, _, variant = experiment.partition(":")
    stem = pathlib.Path(path).stem
    folder = output / (f"{stem}-{variant}" if variant else stem) / str(seed)
    flags = [f"--config={experiment}", *flags, f"--config.seed={seed}"]
    return _Run(folder, flags, command_line.load(flags))


def _result(run: _Run) -> pathlib.Path:
    return run.folder / f"study-{run.checkpoint}.json"


def _check_result(run: _Run) -> None:
    """Raises BadInput if a result is there that is of another config."""
    if not (_result(run).exists() or _is_trained(run)):
        return
    stored = workdir.read_config(str(run.folder))
    differences = fields_lib.differences(stored, run.config)
    lines = "; ".join(
        f"{field} is {there!r} there, {here!r} here"
        for field, (there, here) in differences.items()
        if here != _AUTO and (here or field not in _CHOSEN)
    )
    if lines:
        raise errors.BadInput(
            f"{run.folder} holds the result of another config ({lines}): choose"
            " another --output, or the same values."
        )


def _grouped(made: list[_Run]) -> dict[str, list[_Run]]:
    """Returns the runs of each experiment by its name.

    Raises:
      BadInput: two experiments have one name, or a result is there of another config.
    """
    groups: dict[str, list[_Run]] = {}
    for run in made:
        name = run.folder.parent.name
        group = groups.setdefault(name, [])
        if run.folder in (other.folder for other in group):
            raise errors.BadInput(
                f"two experiments have the name {name!r}, and so one folder. Rename a"
                " file."
            )
        _check_result(run)
        group.append(run)
    return groups


def _is_trained(run: _Run) -> bool:
    """Returns True if a run has come to its end; it is not started again."""
    return (run.folder / "evaluation.json").exists()


class _Commands:
    """Commands on runs, called by several threads, in processes that `end` stops."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._is_over, self._lock = False, threading.Lock()

    def call(self, module: str, run: _Run, *flags: str) -> str:
        """Returns the output of a command.

        Raises:
          BadInput: it refuses its flags or the run.
        """
        name = f"impala_mp.cli.{module}"
        command = [sys.executable, "-m", name, *flags, f"--workdir={run.folder}"]
        with self._lock:
            if self._is_over:
                raise RuntimeError("the study has ended.")
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            self._processes.append(process)
        output, problems = process.communicate()
        if process.returncode == 2:
            *_, sentence = re.split(rf"^{module}\.py: ", problems, flags=re.MULTILINE)
            raise errors.BadInput(f"{run.folder}: {sentence.strip()}")
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{output}{problems}")
        return output

    def end(self) -> None:
        """Stops all processes; there are no new ones. A training saves its state."""
        with self._lock:
            self._is_over = True
        for process in self._processes:
            process.terminate()


def _shares(jobs: int) -> list[set[int]]:
    """Returns the cores of each of the runs at a time; set() is all of them.

    A run gives its learner the first of its cores. On the same cores the learners of
    several runs would share one, and others would idle.
    """
    cores = container_limits.cores_to_bind()
    if len(cores) < jobs or jobs == 1:
        return [set()] * jobs
    return [set(cores[job::jobs]) for job in range(jobs)]


def _stay_on(cores: set[int]) -> None:
    """Keeps this thread, and the processes that it starts, on some cores."""
    if cores:
        os.sched_setaffinity(0, cores)


def _train(commands: _Commands, run: _Run) -> None:
    """Trains to the end.

    Raises:
      BadInput: the run is refused, was stopped, or has no final evaluation.
    """
    output = commands.call("train", run, *run.flags)
    if no_game := _NO_GAME.search(output):
        raise errors.BadInput(f"{run.folder} has no final evaluation: {no_game[1]}")
    if not _is_trained(run):
        raise errors.BadInput(f"{run.folder} was stopped. The same command resumes it.")


def _complete(commands: _Commands, run: _Run) -> float:
    """Trains, unless that has been done; returns the mean return of 100 games."""
    if not _result(run).exists():
        if not _is_trained(run):
            _train(commands, run)
        flags = ("--episodes=100", f"--checkpoint={run.checkpoint}")
        line = commands.call("evaluate", run, *flags).splitlines()[-1]
        files.write_atomically(str(_result(run)), line + "\n")
    mean: float = json.loads(_result(run).read_text())["mean"]
    print(f"{run.folder}: {mean:.2f}", flush=True)
    return mean


def _complete_all(
    made: list[_Run], shares: list[set[int]]
) -> dict[pathlib.Path, float]:
    """Completes as many runs at a time as there are shares; returns mean returns."""
    commands, free = _Commands(), list(shares)
    with concurrent.futures.ThreadPoolExecutor(
        len(shares), initializer=lambda: _stay_on(free.pop())
    ) as pool:
        try:
            means = pool.map(functools.partial(_complete, commands), made)
            return {run.folder: mean for run, mean in zip(made, means, strict=True)}
        finally:
            commands.end()


def _longest_gap(folder: pathlib.Path) -> int:
    """Agent steps between two records, which are written by the clock."""
    steps, _ = run_history.load(str(folder), "agent_steps", _RETURN)
    return int(np.diff(steps, prepend=0).max())


def _steps_to(folder: pathlib.Path, target: float, gap: int) -> int | None:
    """Agent steps at which the last 100 games first had that mean; None: never.

    Looked at every `gap` agent steps, between two records on the line through them: a
    run with more records would have more chances to be lucky.
    """
    returns, counts = (
        run_history.load(str(folder), "agent_steps", key) for key in (_RETURN, _COUNT)
    )
    grid = np.arange(gap, returns[0][-1] + 1, gap)
    enough = np.interp(grid, *counts, left=0.0) >= 100
    good = np.interp(grid, *returns, left=-np.inf) >= target
    found = grid[enough & good]
    return int(found[0]) if len(found) else None


def _mean_lag(folder: pathlib.Path) -> float:
    """Updates: the mean over the whole run, in which each record is an interval's."""
    updates, lags = run_history.load(str(folder), "updates", "lag/mean")
    return float(np.average(lags, weights=np.diff(updates, prepend=0)))


def _row(folders: list[pathlib.Path], returns: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {"returns": returns, "mean": statistics.fmean(returns)}
    if len(returns) > 1:
        row["std"] = statistics.stdev(returns)
    return {**row, "lags": [_mean_lag(folder) for folder in folders]}


def _add_steps(
    rows: dict[str, Any], groups: dict[str, list[_Run]], target: float
) -> None:
    gap = max(_longest_gap(r.folder) for runs in groups.values() for r in runs)
    for name, row in rows.items():
        row["target"], row["steps_apart"] = target, gap
        row["steps_to_target"] = [
            _steps_to(r.folder, target, gap) for r in groups[name]
        ]


def _show(name: str, row: dict[str, Any]) -> None:
    returns = ", ".join(f"{value:.2f}" for value in row["returns"])
    lags = ", ".join(f"{value:.2f}" for value in row["lags"])
    spread = f" ± {row['std']:.2f}" if "std" in row else ""
    text = f"{name:<32} {row['mean']:8.2f}{spread}  ({returns})  lag: {lags}"
    if "steps_to_target" in row:
        steps = ("never" if n is None else f"{n:,}" for n in row["steps_to_target"])
        text += f"  steps to target: {', '.join(steps)}"
    print(text)


def _places(groups: dict[str, list[_Run]], x: str, lines: str) -> dict[str, Any]:
    """Returns label and place of each group's line, for `curves.plot_against`.

    Raises:
      BadInput: there is no such field, or two groups have the same place.
    """
    places: dict[str, Any] = {}
    for name, (run, *_) in groups.items():
        fields = fields_lib.flatten(run.config)
        for field in filter(None, (x, lines)):
            if field not in fields:
                near = fields_lib.nearest(field, list(fields))
                raise errors.BadInput(f"there is no field config.{field}.{near}")
        place = (f"{lines}={fields[lines]}" if lines else "", fields[x])
        if place in places.values():
            raise errors.BadInput(
                f"{name} has the same {x} ({place[1]!r}) as another experiment: name"
                " with --lines a field in which they differ."
            )
        places[name] = place
    return places


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT.py[:VARIANT]")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3, help="of each experiment (3)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--target", type=float, help="a mean return")
    parser.add_argument("--x", default="", help="field to draw final returns against")
    parser.add_argument("--checkpoint", default="newest", help="newest, best or N")
    parser.add_argument("--lines", default="", help="field with a line for each value")
    parser.add_argument("--page", type=pathlib.Path, help="Markdown file to write")
    parser.add_argument("--scores", default="", help="JSON: experiment -> [low, high]")
    flags = [a for a in sys.argv[1:] if a.startswith("--config.")]
    rest = [a for a in sys.argv[1:] if not a.startswith("--config.")]
    options = parser.parse_args(rest)
    for name in ("seeds", "jobs"):
        if (count := getattr(options, name)) < 1:
            parser.error(f"--{name}={count} must be at least 1.")
    which, names = options.checkpoint, (checkpoint_lib.NEWEST, checkpoint_lib.BEST)
    if which not in names and not which.isdecimal():
        parser.error(
            f"--checkpoint={which} must be {', '.join(names)} or the number of an"
            " update."
        )
    if options.lines and not options.x:
        parser.error("--lines needs --x.")
    if options.scores and not options.page:
        parser.error("--scores needs --page.")
    return options, flags


def _write(
    output: pathlib.Path,
    groups: dict[str, list[_Run]],
    rows: dict[str, Any],
    places: dict[str, Any],
    x: str,
) -> None:
    (output / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    drawn = {name: [str(run.folder) for run in runs] for name, runs in groups.items()}
    curves.plot(drawn, str(output / "curves.png"), str(output / "curves.svg"))
    lines: dict[str, dict[Any, list[float]]] = {}
    for name, (label, value) in places.items():
        lines.setdefault(label, {})[value] = rows[name]["returns"]
    if lines:
        curves.plot_against(lines, str(output / "against.png"), x)


def _main() -> None:
    options, flags = _options()
    made = [
        _make_run(options.output, experiment, seed, flags)._replace(
            checkpoint=options.checkpoint
        )
        for seed in range(options.seeds)
        for experiment in dict.fromkeys(options.experiments)
    ]
    groups = _grouped(made)
    places = _places(groups, options.x, options.lines) if options.x else {}
    scores = study_page.read_scores(options.scores) if options.scores else None
    if scores is not None:  # before hours of training
        study_page.normalised({name: [] for name in groups}, scores)
    shares = _shares(min(options.jobs, len(made)))
    means = _complete_all(made, shares)
    rows = {}
    for name, runs in groups.items():
        folders = [run.folder for run in runs]
        rows[name] = _row(folders, [means[folder] for folder in folders])
    if options.target is not None:
        _add_steps(rows, groups, options.target)
    for name, row in rows.items():
        _show(name, row)
    _write(options.output, groups, rows, places, options.x)
    if options.page:
        command = shlex.join(["python", "tools/study.py", *sys.argv[1:]])
        folders = {name: [run.folder for run in runs] for name, runs in groups.items()}
        returns = {name: row["returns"] for name, row in rows.items()}
        at_once = 1 if any(shares) else len(shares)
        which = options.checkpoint
        study_page.write(
            options.page, command, folders, returns, scores, at_once, which
        )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    command_line.run(_main)
