"""The multi-particle experiments: the script that plays tag."""

import numpy as np
import pytest

from experiments import mpe as experiment

mpe2 = pytest.importorskip("mpe2")

_GAMES = 20


def _mean_returns(scripted):
    """Returns those of a hunter and of the prey.

    Players whose names begin with `scripted` follow the script.
    """
    from mpe2 import simple_tag_v3

    env, rng = simple_tag_v3.parallel_env(max_cycles=25), np.random.default_rng(0)
    hunter = prey = 0.0
    for seed in range(_GAMES):
        seen, _ = env.reset(seed=seed)
        while env.agents:
            actions = {
                name: experiment.chase_or_flee(own, None)
                if name.startswith(scripted)
                else int(rng.integers(5))
                for name, own in seen.items()
            }
            seen, rewards, *_ = env.step(actions)
            hunter += rewards["adversary_0"] / _GAMES
            prey += rewards["agent_0"] / _GAMES
    return hunter, prey


def test_a_script_catches_the_prey_and_another_keeps_away():
    none, _ = _mean_returns("nothing")
    caught, _ = _mean_returns("adversary")
    away, _ = _mean_returns("agent")
    assert caught > 25.0 > 10.0 > none > away
