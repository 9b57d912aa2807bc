"""Benchmark: cost of each part on this machine, and distance of training from ideal.

    python tools/benchmark.py [SUBJECT ...] [--json] [--config=FILE.py[:VARIANT]]

Subjects: transport parameters vtrace environment inference actor learner row train;
none named: all of them. Default config: experiments/atari.py:Pong, and MinAtar's own
for `row`. With `train` go the parts that its limit is made of. Apart stand

    python tools/benchmark.py health [--secs=60] [--config=...]
    python tools/benchmark.py start  [--config=...]
    python tools/benchmark.py kernels
    python tools/benchmark.py learn  [--target_return=475] [--config=...]
    python tools/benchmark.py memory [--updates=10000] [--config=...]
    python tools/benchmark.py ranks  [--config=...]
    python tools/benchmark.py hosts  [--secs=60] [--config=...]

`hosts` takes an environment that sleeps, by default. Every number is min/median/max of
repeats after a warm-up. An agent step is one decision; environment frames are emulator
frames.
"""

import json
import os
import pathlib
import platform
import re
import signal
import sys

from absl import flags

from impala_mp import errors
from impala_mp.cli import command_line
from impala_mp.config import container_limits
from impala_mp.runtime import launch

FLAGS = flags.FlagValues()
_ROOT = pathlib.Path(__file__).resolve().parent.parent
_DEFAULT = f"--config={_ROOT}/experiments/atari.py:Pong"
_SLEEPING = f"--config={_ROOT}/tools/benchmarks/sleeping.py"
_CONFIG = command_line.define_config(FLAGS)
_JSON = flags.DEFINE_boolean(
    "json", False, "One JSON line at the end.", flag_values=FLAGS
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "Of each measurement.", lower_bound=1, flag_values=FLAGS
)
_SECS = flags.DEFINE_float(
    "secs",
    60.0,
    "Of a training in `train`, `health` and `hosts`.",
    lower_bound=5.0,
    flag_values=FLAGS,
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Trainings of `learn`.", lower_bound=1, flag_values=FLAGS
)
_TARGET = flags.DEFINE_float(
    "target_return", 475.0, "Mean return of 100 games, of `learn`.", flag_values=FLAGS
)
_UPDATES = flags.DEFINE_integer(
    "updates", 10_000, "Of `memory`.", lower_bound=100, flag_values=FLAGS
)

_PARTS = ("transport", "parameters", "vtrace", "environment", "inference", "actor")
_WHOLE = (*_PARTS, "learner", "row", "train")
_APART = ("health", "start", "kernels", "learn", "memory", "ranks", "hosts")
_OF_TRAIN = ("environment", "inference", "learner")  # what its limit is made of


def _subjects() -> list[str]:
    """Takes the subjects out of sys.argv; what is left are flags."""
    given = [re.sub(r"^-+(?=[^-])", "--", a) for a in sys.argv[1:]]  # -x is --x
    named = [a for a in given if not a.startswith("-")]
    sys.argv = [sys.argv[0], *(a for a in given if a.startswith("-"))]
    if not any(a.startswith("--config=") for a in sys.argv):
        sys.argv.insert(1, _SLEEPING if named == ["hosts"] else _DEFAULT)
    for name in named:
        if name not in (*_WHOLE, *_APART):
            raise errors.BadInput(
                f"there is no subject {name!r}; choose among"
                f" {', '.join((*_WHOLE, *_APART))}."
            )
    if "train" in named:
        named = [*_OF_TRAIN, *named]
    return list(dict.fromkeys(named or _WHOLE))


def _functions() -> dict:
    """Returns the function of a subject; its module imports torch."""
    from benchmarks import hosts, kernels, parts, ranks, trainings, transport

    return {
        "transport": transport.transport,
        "parameters": transport.parameters,
        "vtrace": parts.vtrace,
        "environment": parts.environment,
        "inference": parts.inference,
        "actor": parts.actor_loop,
        "learner": parts.learn_batch,
        "row": parts.learned_row,
        "train": trainings.train,
        "health": trainings.health,
        "start": trainings.start,
        "kernels": kernels.kernels,
        "learn": trainings.learn,
        "memory": trainings.memory,
        "ranks": ranks.learner_ranks,
        "hosts": hosts.actor_hosts,
    }


def _row(name: str, result: dict) -> str:
    numbers = "  ".join(f"{result[k]:>12,.2f}" for k in ("min", "median", "max"))
    return f"  {name:<44}{numbers}  {result['unit']}"


def _machine() -> dict:
    import torch

    device = _CONFIG.value.learner.device
    cuda = torch.cuda.get_device_name(device) if device.startswith("cuda") else "none"
    return {
        "cores": container_limits.num_cores(),
        "gpu": cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "config": [a for a in sys.argv if a.startswith("--config=")][-1],
        "environment": _CONFIG.value.environment.id,
        "torso": _CONFIG.value.network.torso,
    }


def _benchmark() -> None:
    names = _subjects()
    command_line.parse(FLAGS, str(__doc__))
    from benchmarks import context as context_lib  # torch: after the environment is set

    config_flags = [a for a in sys.argv[1:] if a.startswith(("--config", "--noconfig"))]
    options = context_lib.Options(
        _REPEATS.value, _SECS.value, _SEEDS.value, _TARGET.value, _UPDATES.value
    )
    context = context_lib.Context(_CONFIG.value, config_flags, options)
    measure, ratios = _functions(), {}
    machine = _machine()
    print("  ".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"{'':46}{'min':>12}  {'median':>12}  {'max':>12}")
    for name in names:
        print(name, flush=True)
        rows, found = measure[name](context)
        context.results |= {f"{name}/{label}": row for label, row in rows.items()}
        ratios |= found
        for label, result in rows.items():
            print(_row(label, result))
        for label, ratio in found.items():
            print(f"  {label:<44}{ratio:>12,.3f}", flush=True)
    if _JSON.value:
        print(json.dumps({**machine, **ratios, "results": context.results}))


def main() -> None:
    """Runs the script; restarts once, so that the allocator's settings hold."""
    if os.environ.get("MALLOC_TOP_PAD_") != launch.ENVIRONMENT["MALLOC_TOP_PAD_"]:
        launch.set_environment()
        os.execv(sys.executable, [sys.executable, *sys.argv])
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))  # ends its trainings
    command_line.run(_benchmark)


if __name__ == "__main__":
    main()
