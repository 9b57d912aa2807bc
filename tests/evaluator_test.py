"""Evaluation: quotas fixed beforehand, greedy or sampled, and one forward a step."""

import numpy as np
import pytest
import torch

from impala_mp import agent, config as config_lib, environments, evaluator, types
from tests import builders


class _Lengths:
    """Copy i plays games of length i + 1 whose return is i."""

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self._index = np.arange(num_envs)
        self._age = np.zeros(num_envs, np.int64)

    def reset(self, seeds):
        assert len(seeds) == self.num_envs
        return self._row(np.zeros(self.num_envs, bool))

    def _row(self, over):
        step_type = np.where(over, types.StepType.LAST, types.StepType.MID)
        return types.TimeStep(
            step_type.astype(np.uint8),
            np.zeros(self.num_envs, np.float32),
            (~over).astype(np.float32),
            np.zeros((self.num_envs, 10, 5), np.float32),
        )

    def step(self, action):
        self._age += 1
        over = self._age == self._index + 1
        self._age[over] = 0
        returns = np.where(over, self._index, np.nan).astype(np.float32)
        end = types.EpisodeEnd(returns, np.where(over, self._index + 1, 0))
        return self._row(over), end


def _policy():
    config = builders.config()
    spec = environments.make(config.environment, 1).spec
    torch.manual_seed(0)
    return agent.make(config, spec)


@pytest.mark.parametrize("episodes", [1, 3, 4, 11])
def test_short_games_are_not_favoured(episodes):
    seed = np.random.SeedSequence(0)
    returns = evaluator.evaluate(_policy(), _Lengths(4), episodes, False, seed)
    expected = [i % 4 for i in range(episodes)]
    assert sorted(returns) == sorted(expected)


def test_the_same_seed_gives_the_same_games():
    def play(seed, greedy=False):
        environment = environments.make(builders.config().environment, 5)
        root = np.random.SeedSequence(seed)
        return evaluator.evaluate(_policy(), environment, 50, greedy, root)

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_greedy_takes_the_likeliest_action():
    policy, taken = _policy(), []
    with torch.no_grad():
        policy.network.policy.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))

    class Spy(_Lengths):
        def step(self, action):
            taken.extend(action.tolist())
            return super().step(action)

    evaluator.evaluate(policy, Spy(4), 40, True, np.random.SeedSequence(0))
    assert set(taken) == {2}
    taken.clear()
    evaluator.evaluate(policy, Spy(4), 40, False, np.random.SeedSequence(0))
    assert set(taken) == {0, 1, 2}


def test_it_can_be_ended_early():
    seed = np.random.SeedSequence(0)
    returns = evaluator.evaluate(
        _policy(), _Lengths(4), 100, False, seed, each_step=lambda: False
    )
    assert returns == []


def test_the_summary():
    summary = evaluator.summarise([1.0, 2.0, 6.0])
    assert summary == (3.0, 2.0, pytest.approx((14 / 3) ** 0.5), 1.0, 6.0, 3)
    for by_task in ({"": [1.0, 2.0]}, {"/A": [1.0], "/B": [2.0]}):
        names = evaluator.record_names(tuple(by_task))
        assert set(evaluator.as_record(by_task, 7)) == set(names)


def test_the_protocol_names_what_a_return_means():
    config = config_lib.get_base_config()
    config.environment.kwargs = {"rows": 7}
    assert evaluator.protocol(config, True) == (
        "Catch(rows=7), full games, greedy actions"
    )
