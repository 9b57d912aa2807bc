"""Atari games: lives, full games, stacked images."""

import numpy as np
import pytest

from impala_mp import types
from impala_mp.environments import factory
from tests.support import builders

_LAST, _FIRST = types.StepType.LAST, types.StepType.FIRST


def _breakout(training):
    settings = builders.environment_settings(
        "ALE/Breakout-v5", episodic_life=True, use_fire_reset=True
    )
    return factory.make(settings, 4, training=training)


def _fire(time_step):
    return np.ones(4, np.int64)


@pytest.mark.integration
def test_a_lost_life_ends_the_episode_but_not_the_game():
    environment = _breakout(training=True)
    time_step = environment.reset(range(4))
    lost, games = 0, 0
    for _ in range(1500):
        time_step, ended = environment.step(_fire(time_step))
        last = time_step.step_type == _LAST
        assert not time_step.discount[last].any()
        over = ~np.isnan(ended.episode_return)
        assert not (over & ~last).any()  # a game's end is an episode's too
        lost, games = lost + last.sum(), games + over.sum()
    assert games >= 4
    assert 4 * games <= lost <= 6 * games + 20  # five lives a game


@pytest.mark.integration
def test_full_games_are_played_in_evaluation():
    environment = _breakout(training=False)
    time_step, lasts, games = environment.reset(range(4)), 0, 0
    for _ in range(1000):
        time_step, ended = environment.step(_fire(time_step))
        lasts += (time_step.step_type == _LAST).sum()
        games += (~np.isnan(ended.episode_return)).sum()
    assert games == lasts > 0


def test_atari_images_are_channels_last_and_newest_last():
    environment = factory.make(
        builders.environment_settings("ALE/Pong-v5", noop_max=0), 2
    )
    assert environment.spec.observation.shape == (84, 84, 4)
    assert environment.spec.frames_per_step == 4
    before = environment.reset([0, 1]).observation.copy()
    after = environment.step(np.array([2, 3]))[0].observation
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(after[..., :3], before[..., 1:])
