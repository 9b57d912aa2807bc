"""Trainings that chaos.py torments: environment, experiment and expected return."""

import pathlib
from typing import Any, NamedTuple

_EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
_UNWRAPPED = {"ALE": "atari.py", "MinAtar": "minatar.py"}  # by id/NAME-version


class Training(NamedTuple):
    """A training whose return is known."""

    environment: str  # that is wrapped; empty: what the wrapper makes
    experiment: str  # and its variant
    target: float | None = None  # of the final return
    wrapper: str = "Chaos-v0"
    settings: dict[str, Any] = {}
    against: str = ""  # opponent in the final games; empty: the policy itself
    without: tuple[str, ...] = ()  # faults that cannot be committed
    num_policies: int = 1
    may_be_served: bool = True  # by an inference server
    may_have_hosts: bool = True
    may_have_ranks: bool = True


KNOWN = {
    "catch": Training("Catch", "catch.py", 0.9),
    "cartpole": Training("CartPole-v1", "cartpole.py", 450.0),
    # With an LSTM, whose state outlives a bad observation.
    "recall": Training("Recall", "recall.py", 0.9),
    # Action values from a replay.
    "r2d2": Training("Recall", "recall.py:r2d2", 0.9, may_have_ranks=False),
    # Three players, each with a policy and a replay: the mean return of a player.
    "spread-dqn": Training(
        "mpe2.simple_spread_v3:parallel_env",
        "mpe.py:spread-dqn",
        -18.0,
        "FaultyGame",
        num_policies=3,
        may_have_ranks=False,
    ),
    # Tic-tac-toe against snapshots of the policy. Boards are bytes, and never NaN.
    "league": Training(
        "",
        "connect.py:tictactoe",
        0.8,
        "FaultyBoards",
        {"league.every": 50_000, "league.size": 8},
        "random",
        ("environment_nan_observation",),
        may_be_served=False,
        may_have_hosts=False,
        may_have_ranks=False,
    ),
}


def of(env: str) -> Training:
    """Returns the training of a name in KNOWN, or of a Gymnasium id."""
    return KNOWN.get(env, Training(env, "cartpole.py"))


def is_wrapped(env: str) -> bool:
    """Returns whether the environment can misbehave on request."""
    return env.split("/")[0] not in _UNWRAPPED


_WRAPPED = """\
import runpy


def get_config():
    config = runpy.run_path({file!r})["get_config"](*{variant!r})
    config.environment.id = "faults.faulty_env:{name}"
    config.environment.kwargs.update({arguments!r})
    return config
"""


def experiment(env: str, base: pathlib.Path) -> str:
    """The config of `env`, which misbehaves on request if it can be wrapped."""
    folder, _, rest = env.partition("/")
    if folder in _UNWRAPPED:
        return f"{_EXPERIMENTS / _UNWRAPPED[folder]}:{rest.split('-')[0]}"
    known = of(env)
    file, *variant = known.experiment.split(":")
    arguments = {"control": str(base / "run" / "fault")}
    if known.environment:
        arguments["inner"] = known.environment
    path = base / "wrapped.py"
    path.write_text(
        _WRAPPED.format(
            file=str(_EXPERIMENTS / file),
            variant=variant,
            name=known.wrapper,
            arguments=arguments,
        )
    )
    return str(path)
