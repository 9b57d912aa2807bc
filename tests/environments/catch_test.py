"""The built-in games: Catch and Recall by their optimal players."""

import numpy as np
import pytest

from impala_mp.environments import factory
from tests.support import builders


def _play(environment, choose, steps):
    """All full-game returns of `steps` vector steps."""
    time_step, returns = environment.reset(range(environment.num_envs)), []
    for _ in range(steps):
        time_step, ended = environment.step(choose(time_step))
        returns += ended.episode_return[~np.isnan(ended.episode_return)].tolist()
    return returns


def _follow_the_ball(time_step):
    board = time_step.observation
    ball, paddle = board[:, :-1].max(1).argmax(1), board[:, -1].argmax(1)
    return (1 + np.sign(ball - paddle)).astype(np.int64)


def test_following_the_ball_catches_it():
    environment = factory.make(
        builders.environment_settings("Catch", rows=7, columns=5), 4
    )
    returns = _play(environment, _follow_the_ball, 100)
    assert len(returns) > 20
    assert set(returns) == {1.0}


def test_standing_still_catches_one_ball_in_five():
    environment = factory.make(builders.environment_settings("Catch"), 50)
    still = np.ones(50, np.int64)
    returns = _play(environment, lambda time_step: still, 300)
    assert np.mean(returns) == pytest.approx(-0.6, abs=0.1)  # 1 of 5 columns


class _Memory:
    """Remembers the cue, and answers with it."""

    def __init__(self, num_envs):
        self._cue = np.zeros(num_envs, np.int64)

    def __call__(self, time_step):
        shown = time_step.observation[:, :-1]
        self._cue[shown.any(1)] = shown.argmax(1)[shown.any(1)]
        return self._cue


def test_recall_is_solved_by_memory_alone():
    environment = factory.make(
        builders.environment_settings("Recall", num_cues=4, delay=3), 40
    )
    assert set(_play(environment, _Memory(40), 60)) == {1.0}
    zeros = np.zeros(40, np.int64)
    returns = _play(environment, lambda time_step: zeros, 600)
    assert np.mean(returns) == pytest.approx(0.25, abs=0.04)
