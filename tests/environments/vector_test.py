"""Vector environments as time steps: a naive twin, the optimum, snapshots, refusals."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from impala_mp import errors, types
from impala_mp.environments import factory, vector
from impala_mp.environments.catch import CatchVectorEnv
from tests.support import builders, counting

_LAST, _FIRST = types.StepType.LAST, types.StepType.FIRST


class _Twin:
    """One copy, an episode at a time, as the words of the README say it."""

    def __init__(self, seed):
        self._env = counting.Counter()
        self._restart(seed)

    def _restart(self, seed=None):
        self.observation, _ = self._env.reset(seed=seed)
        self.row = (_FIRST, 0.0, 1.0)
        self.total, self.length, self.end = 0.0, 0, None

    def step(self, action):
        self.end = None
        if self.row[0] == _LAST:
            self._restart()
            return
        self.observation, reward, terminated, truncated, _ = self._env.step(action)
        self.total, self.length = self.total + reward, self.length + 1
        over = terminated or truncated
        self.row = (
            _LAST if over else types.StepType.MID,
            reward,
            float(not terminated),
        )
        if over:
            self.end = (self.total, self.length)


def test_rows_equal_those_of_episodes_played_one_at_a_time():
    seeds, rng = [3, 4, 5], np.random.default_rng(0)
    environment = factory.make(
        builders.environment_settings("tests.support.counting:Counter-v0"), 3
    )
    twins = [_Twin(seed) for seed in seeds]
    time_step, ended = environment.reset(seeds), None
    for _ in range(200):
        for i, twin in enumerate(twins):
            row = (
                time_step.step_type[i],
                time_step.reward[i],
                time_step.discount[i],
            )
            assert row == twin.row
            np.testing.assert_array_equal(time_step.observation[i], twin.observation)
            if ended is not None:
                _check_end(ended, i, twin.end)
        actions = rng.integers(3, size=3)
        time_step, ended = environment.step(actions)
        for twin, action in zip(twins, actions, strict=True):
            twin.step(action - 1)  # the space starts at -1


def _check_end(ended, i, expected):
    if expected is None:
        assert np.isnan(ended.episode_return[i])
        assert ended.episode_length[i] == 0
    else:
        assert (ended.episode_return[i], ended.episode_length[i]) == expected


class _Generous(CatchVectorEnv):
    """Gives a reward with the reset observation, as some do."""

    def step(self, actions):
        observation, _, *rest = super().step(actions)
        return observation, np.ones(self.num_envs), *rest


def test_a_reward_given_at_a_reset_is_ignored():
    environment = vector.VectorEnvironment(_Generous(2, rows=3))
    environment.reset([0, 1])
    steps = [environment.step(np.ones(2, np.int64)) for _ in range(6)]
    assert [s.reward[0] for s, _ in steps] == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    returns = [end.episode_return[0] for _, end in steps]
    assert returns[1] == returns[4] == 2.0


def test_ignored_observations_are_left_out():
    settings = builders.environment_settings("tests.support.counting:Wordy-v0")
    settings.ignored = ("words",)
    environment = factory.make(settings, 2)
    assert set(environment.spec.observation) == {"numbers"}
    first = environment.reset([0, 1])
    step, _ = environment.step(np.ones(2, np.int64))
    assert first.observation["numbers"].shape == (2, 2)
    assert list(step.observation) == ["numbers"]


class _SameStep(CatchVectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}


def test_another_autoreset_mode_is_refused():
    with pytest.raises(errors.BadInput, match="NEXT_STEP"):
        vector.VectorEnvironment(_SameStep(2))
