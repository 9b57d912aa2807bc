"""Level-based foraging: what its returns mean."""

import numpy as np
import pytest

from experiments import foraging as experiment
from impala_mp.environments import factory

pytest.importorskip("lbforaging")

_NONE, _LOAD = 0, 5
_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # of the actions 1 to 4


def _act(seen, player, rng):
    """Walks to a place beside the first food and loads: one player above or left of it.

    Some moves are random, because players and food may be in the way.
    """
    food, own = seen[:2], seen[6:8]
    distance = np.abs(food - own)
    if distance.sum() == 1:
        return _LOAD
    if rng.random() < 0.3:
        return int(rng.integers(1, 5))
    goal = food + ((-1, 0) if player == 0 else (0, 1))
    gains = [
        np.abs(goal - own).sum() - np.abs(goal - own - move).sum() for move in _MOVES
    ]
    return 1 + int(np.argmax(gains))


def test_a_game_has_one_in_all_at_best():
    """The mean return of a player is half of a game's."""
    rng = np.random.default_rng(0)
    environment = factory.make(experiment.get_config().environment, 16)
    assert environment.spec.players == ("player_0", "player_1")
    time_step = environment.reset(range(16))
    games = []
    for _ in range(400):
        actions = [
            _act(seen, column % 2, rng)
            for column, seen in enumerate(time_step.observation)
        ]
        time_step, ended = environment.step(np.array(actions))
        over = ~np.isnan(ended.episode_return)
        games += ended.episode_return.reshape(-1, 2)[over.reshape(-1, 2)[:, 0]].tolist()
    totals = np.sum(games, 1)
    assert len(totals) > 50
    assert np.mean(totals) > 0.8
    assert np.max(totals) == pytest.approx(1.0)
    assert np.all(totals < 1.0 + 1e-6)
