"""Trainings that chaos.py torments: environment, experiment and expected return."""

from typing import Any, NamedTuple


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


KNOWN = {
    "catch": Training("Catch", "catch.py", 0.9),
    "cartpole": Training("CartPole-v1", "cartpole.py", 450.0),
    # With an LSTM, whose state outlives a bad observation.
    "recall": Training("Recall", "recall.py", 0.9),
    "r2d2": Training("Recall", "recall.py:r2d2", 0.9),  # action values from a replay
    # Three players, each with a policy and a replay: the mean return of a player.
    "spread-dqn": Training(
        "mpe2.simple_spread_v3:parallel_env",
        "mpe.py:spread-dqn",
        -18.0,
        "FaultyGame",
        num_policies=3,
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
    ),
}


def of(env: str) -> Training:
    """Returns the training of a name in KNOWN, or of a Gymnasium id."""
    return KNOWN.get(env, Training(env, "cartpole.py"))
