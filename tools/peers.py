"""Draws return against wall-clock: impala_mp and two peers on the same machine.

    python tools/peers.py --output=runs/peers [--seeds=3] [--environment=CartPole-v1]

The peers are Stable-Baselines3, by its RL Zoo with the settings that the zoo has for
the environment, and Sample Factory with those of its example for Gymnasium. Each is
installed from the registry into a virtual environment in DIR. Trainings run one at a
time, in turn. Seconds count from the launch of the process; a training ends after
--secs, or where its settings end it. Returns are those of training, as each framework
averages them: over 100 games.

Writes DIR/peers.png, and a folder with metrics.jsonl for each training. One that is
there already is not repeated.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from typing import NamedTuple

import harness
from impala_mp import errors
from impala_mp.cli import command_line
from impala_mp.monitoring import curves

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_SECONDS, _RETURN = "seconds from launch", "episode/return_mean"
_POLL_SECS = 0.05
_END_SECS = 20.0  # from an interrupt to a kill

Result = dict[str, float]  # agent_steps and the return, as far as a line has them


class _Peer(NamedTuple):
    """A framework: its packages, its training, and what a line of that reports."""

    label: str
    packages: tuple[str, ...]  # none: this environment
    module: str
    arguments: tuple[str, ...]  # {} are environment, seed and folder
    reports: str  # file, relative to the folder
    read: Callable[[str], Result]


def _read_record(line: str) -> Result:
    record = json.loads(line)
    return {key: record[key] for key in ("agent_steps", _RETURN) if key in record}


def _read_table(line: str) -> Result:
    """Reads a row of Stable-Baselines3's table: | ep_rew_mean | 21.3 |."""
    cells = [cell.strip() for cell in line.split("|")]
    names = {"ep_rew_mean": _RETURN, "total_timesteps": "agent_steps"}
    if len(cells) > 2 and cells[1] in names:
        return {names[cells[1]]: float(cells[2])}
    return {}


def _read_log(line: str) -> Result:
    """Reads Sample Factory's log, which has frames and returns in lines apart."""
    found = {}
    if frames := re.search(r"Total num frames: (\d+)", line):
        found["agent_steps"] = float(frames[1])
    if reward := re.search(r"Avg episode reward: \[\(0, '(-?[\d.]+)'\)\]", line):
        found[_RETURN] = float(reward[1])
    return found


_OURS = _Peer(
    "impala_mp",
    (),
    "impala_mp.cli.train",
    ("{environment}", "--config.seed={seed}", "--workdir={folder}/run"),
    "run/metrics.jsonl",
    _read_record,
)
_ZOO = _Peer(
    "Stable-Baselines3 PPO",
    ("rl_zoo3==2.9.2", "stable-baselines3==2.9.2"),
    "rl_zoo3.train",
    (
        *("--algo=ppo", "--env={environment}", "--seed={seed}", "--eval-freq=-1"),
        *("--log-folder={folder}/logs", "--log-interval=1"),
    ),
    "output.txt",
    _read_table,
)
_FACTORY = _Peer(
    "Sample Factory APPO",
    ("sample-factory==2.1.1",),
    "sf_examples.train_gym_env",
    (
        *("--algo=APPO", "--env={environment}", "--seed={seed}", "--device=cpu"),
        *("--use_rnn=False", "--recurrence=1", "--with_vtrace=False"),
        *("--num_envs_per_worker=20", "--policy_workers_per_policy=2"),
        *("--batch_size=512", "--reward_scale=0.1", "--train_for_env_steps=10000000"),
        *("--train_dir={folder}", "--experiment=run"),
    ),
    "output.txt",
    _read_log,
)
_PEERS = (_OURS, _ZOO, _FACTORY)


def _interpreter(peer: _Peer, output: pathlib.Path) -> str:
    """Returns a Python that has the peer; installs it where it is not yet."""
    if not peer.packages:
        return sys.executable
    home = output / f"venv-{peer.module.partition('.')[0]}"
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        venv.create(home, with_pip=True, clear=True)
        constraints = (_ROOT / "constraints.txt").read_text()
        (torch,) = re.findall(r"^torch==\S+", constraints, re.MULTILINE)
        install = [str(python), "-m", "pip", "install", "-q", torch, *peer.packages]
        subprocess.run(install, check=True)
        (home / "installed").touch()
    return str(python)


def _train(peer: _Peer, python: str, values: dict[str, str], secs: float) -> None:
    """Trains once, and stamps each report with the seconds since the launch."""
    folder = pathlib.Path(values["folder"])
    shutil.rmtree(folder, ignore_errors=True)  # of a training that was interrupted
    folder.mkdir(parents=True)
    arguments = [each.format(**values) for each in peer.arguments]
    with (folder / "output.txt").open("w") as log:
        start = time.monotonic()
        process = subprocess.Popen(
            [python, "-m", peer.module, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=_ROOT,
            start_new_session=True,
        )
    try:
        _stamp(peer, process, folder, start, secs)
    finally:
        code = process.poll()
        _end(process)
    identity = {"environment": {"id": values["environment"]}, "peer": peer.label}
    (folder / "config.json").write_text(json.dumps(identity))
    part = folder / "metrics.part"
    if code or not part.stat().st_size:
        raise errors.BadInput(
            f"the training of {peer.label} gave no return, or failed. See"
            f" {folder}/output.txt."
        )
    part.rename(folder / "metrics.jsonl")


def _stamp(
    peer: _Peer,
    process: "subprocess.Popen[bytes]",
    folder: pathlib.Path,
    start: float,
    secs: float,
) -> None:
    """Writes a record for each pair of a return and agent steps, until the end."""
    reports, ended = harness.Lines(folder / peer.reports), False
    pair: Result = {}
    with (folder / "metrics.part").open("w") as records:
        while not ended:
            time.sleep(_POLL_SECS)
            ended = process.poll() is not None or time.monotonic() - start > secs
            for line in reports.new()[0]:
                pair |= peer.read(line.decode(errors="replace"))
                if len(pair) == 2:
                    now = {_SECONDS: round(time.monotonic() - start, 3)}
                    records.write(json.dumps(now | pair) + "\n")
                    pair = {}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a training and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="DIR")
    parser.add_argument("--environment", default="CartPole-v1", help="a Gymnasium id")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (3)")
    parser.add_argument("--secs", type=float, default=60.0, help="of a training (60)")
    options = parser.parse_args()
    if options.seeds < 1 or not options.secs > 0.0:
        parser.error("--seeds must be at least 1, and --secs above 0")
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    pythons = {peer.label: _interpreter(peer, output) for peer in _PEERS}
    groups: dict[str, list[str]] = {peer.label: [] for peer in _PEERS}
    for seed in range(options.seeds):
        for peer in _PEERS:
            name = f"{peer.module.partition('.')[0]}-{options.environment}-{seed}"
            folder = output / name.replace("/", "-")
            if not (folder / "metrics.jsonl").exists():
                values = {"environment": options.environment, "seed": str(seed)}
                values["folder"] = str(folder)
                _train(peer, pythons[peer.label], values, options.secs)
            groups[peer.label].append(str(folder))
    curves.plot(groups, str(output / "peers.png"), key=_RETURN, x=_SECONDS)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    command_line.run(_main)


if __name__ == "__main__":
    main()
