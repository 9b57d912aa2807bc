"""Battle: its players, its teams, and that the dead are out."""

import numpy as np
import pytest

from experiments import battle as experiment
from impala_mp import types
from impala_mp.environments import factory, roster

pytest.importorskip("magent2")

# Cells that actions lead to, and cells that the actions after them attack.
_MOVES = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if abs(y) + abs(x) < 3]
_ATTACKS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
_ENEMIES = 3  # plane of an observation


def _fight(seen, ahead, rng):
    """Attacks where an enemy is near; otherwise walks to one, or ahead."""
    enemies = np.argwhere(seen[..., _ENEMIES] > 0) - 6
    for number, cell in enumerate(_ATTACKS):
        if (enemies == cell).all(1).any():
            return len(_MOVES) + number
    if rng.random() < 0.3:
        return int(rng.integers(len(_MOVES)))
    goal = enemies[np.abs(enemies).sum(1).argmin()] if len(enemies) else (0, ahead)
    return int(np.argmin(np.abs(np.array(_MOVES) - goal).sum(1)))


def test_six_fight_six_and_the_dead_stay_out():
    rng = np.random.default_rng(0)
    environment = factory.make(experiment.get_config().environment, 12)
    assert environment.spec.action.num_actions == len(_MOVES) + len(_ATTACKS)
    teams = roster.sides_of(environment.spec.players)
    assert teams == {"red": tuple(range(6)), "blue": tuple(range(6, 12))}
    time_step = environment.reset(range(12))
    dead = np.zeros(12, bool)
    for _ in range(200):
        actions = [
            _fight(seen, 6 if player < 6 else -6, rng)
            for player, seen in enumerate(time_step.observation)
        ]
        time_step, ended = environment.step(np.array(actions))
        assert np.isnan(ended.episode_return[dead]).all()
        dead |= ~np.isnan(ended.episode_return)
        assert not time_step.acts[dead].any()
        assert (time_step.step_type[dead] == types.StepType.LAST).all()
        if dead.all():  # the winners' episodes end with the last of the others
            break
    assert dead.all()
