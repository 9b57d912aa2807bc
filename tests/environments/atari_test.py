"""Atari games: lives, full games, stacked images."""

import gymnasium
import numpy as np
import pytest

from impala_mp import types
from impala_mp.environments import factory
from tests.support import builders, counting

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
    assert environment.spec.observation.stack_size == 4
    assert environment.spec.frames_per_step == 4
    before = environment.reset([0, 1]).observation.copy()
    after = environment.step(np.array([2, 3]))[0].observation
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(after[..., :3], before[..., 1:])


_ATARI = "ale_py.vector_env:AtariVectorEnv"
gymnasium.register(
    "Arcade/Pong-v0", vector_entry_point=_ATARI, kwargs={"game": "pong", "frameskip": 2}
)
gymnasium.register("ALE/Mine-v0", counting.Counter)


@pytest.mark.parametrize(
    ("name", "frames"),
    [("ale_py:ALE/Pong-v5", 4), (f"{__name__}:Arcade/Pong-v0", 2), ("ALE/Pong-v5", 4)],
)
def test_atari_is_known_by_its_entry_point(name, frames):
    environment = factory.make(builders.environment_settings(name, noop_max=0), 2)
    assert environment.spec.observation.shape == (84, 84, 4)
    assert environment.frames_per_step == environment.spec.frames_per_step == frames
    environment.close()


@pytest.mark.parametrize("name", ["ALE/Mine-v0", f"{__name__}:ALE/Mine-v0"])
def test_another_environment_may_have_an_id_of_atari(name):
    environment = factory.make(builders.environment_settings(name), 2)
    assert environment.spec.observation.shape == (2,)
    assert environment.spec.frames_per_step == 1
    assert environment.reset([0, 1]).observation.shape == (2, 2)
    environment.close()


def test_colours_come_last_plane_by_plane():
    settings = builders.environment_settings(
        "ALE/Pong-v5", noop_max=0, grayscale=False, stack_num=2
    )
    environment = factory.make(settings, 2)
    raw = gymnasium.make_vec(
        "ALE/Pong-v5", 2, noop_max=0, grayscale=False, stack_num=2, num_threads=1
    )
    assert environment.spec.observation.shape == (84, 84, 6)
    assert environment.spec.observation.stack_size == 2
    image = environment.reset([0, 1]).observation
    for actions in ([2, 3], [3, 2]):
        image = environment.step(np.array(actions))[0].observation
        assert image.dtype == np.uint8
    raw.reset(seed=np.array([0, 1]))
    for actions in ([2, 3], [3, 2]):
        expected = raw.step(np.array(actions))[0]
    assert expected.shape == (2, 2, 84, 84, 3)
    np.testing.assert_array_equal(image[..., :3], expected[:, 0])
    np.testing.assert_array_equal(image[..., 3:], expected[:, 1])
    assert len(np.unique(image.reshape(-1, 6)[:, 3:], axis=0)) > 3
    np.testing.assert_array_equal(environment.frame()[::3, ::3], expected[0, 1])
    environment.close()
