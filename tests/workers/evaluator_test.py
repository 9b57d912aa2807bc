"""Evaluation: quotas fixed beforehand, greedy or sampled, and one forward a step."""

import numpy as np
import pytest
import torch

from impala_mp import config as config_lib, specs, types
from impala_mp.environments import bad_data, episode_numbers, factory, vector
from impala_mp.networks import agent
from impala_mp.workers import evaluator
from tests.support import builders


class _Lengths:
    """Copy i plays games of length i + 1 whose return is i."""

    specs = (specs.EnvironmentSpec((), (), 1),)
    players = labels = ("",)

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self._index = np.arange(num_envs)
        self._age = np.zeros(num_envs, np.int64)
        self.numbers = episode_numbers.EpisodeNumbers()

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

    num_episodes = vector.VectorEnvironment.num_episodes

    def step(self, action):
        self._age += 1
        over = self._age == self._index + 1
        self._age[over] = 0
        returns = np.where(over, self._index, np.nan).astype(np.float32)
        lengths = np.where(over, self._index + 1, 0)
        end = types.EpisodeEnd(returns, lengths, None)
        return self._row(over), end


def _policy():
    config = builders.config()
    spec = factory.make(config.environment, 1).spec
    torch.manual_seed(0)
    return agent.make(config, spec)


@pytest.mark.parametrize("episodes", [1, 3, 4, 11])
def test_short_games_are_not_favoured(episodes):
    seed = np.random.SeedSequence(0)
    played = evaluator.evaluate(_policy(), _Lengths(4), episodes, False, seed)
    returns = played.returns
    assert played.lengths == [value + 1 for value in returns]
    expected = [i % 4 for i in range(episodes)]
    assert sorted(returns) == sorted(expected)


def test_the_same_seed_gives_the_same_games():
    def play(seed, greedy=False):
        environment = factory.make(builders.config().environment, 5)
        root = np.random.SeedSequence(seed)
        return evaluator.evaluate(_policy(), environment, 50, greedy, root).returns

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
    ).returns
    assert returns == []


class _Endless(_Lengths):
    """Copy 0 plays its third game for ever, copy 3 its first."""

    def __init__(self, num_envs):
        super().__init__(num_envs)
        self._ended = np.zeros(num_envs, int)

    def step(self, action):
        self._age[(self._ended >= 2) & (self._index == 0)] = 5
        self._age[self._index == 3] = 5
        row, end = super().step(action)
        self._ended += ~np.isnan(end.episode_return)
        return row, end


def test_a_game_without_an_end_ends_the_share_of_its_copy_and_is_reported():
    sentences, steps = [], []
    returns = evaluator.evaluate(
        _policy(),
        _Endless(4),
        episodes=20,
        greedy=False,
        seed=np.random.SeedSequence(0),
        each_step=lambda: steps.append(0) or True,
        max_steps=30,
        report=sentences.append,
    ).returns
    assert sorted(returns) == [0.0] * 2 + [1.0] * 5 + [2.0] * 5
    assert len(steps) == 2 + 31
    assert len(sentences) == 1
    assert sentences[0].startswith("8 of 20 games are not counted")
    assert "evaluation.max_steps (30)" in sentences[0]


class _Spoiling(_Lengths):
    """Bad data at the steps and resets of these numbers."""

    def __init__(self, num_envs, bad):
        super().__init__(num_envs)
        self._bad, self._calls, self.seeds = bad, 0, []

    def _spoil(self):
        self._calls += 1
        if self._calls in self._bad:
            self._age[:] = 0
            raise bad_data.BadData("bad_rewards", "a reward is not finite")

    def reset(self, seeds):
        self.seeds.append(tuple(seeds))
        self._age[:] = 0
        self._spoil()
        return super().reset(seeds)

    def step(self, action):
        self._spoil()
        return super().step(action)


def test_bad_data_restarts_all_games_with_other_seeds():
    sentences, environment = [], _Spoiling(4, bad={1, 6, 9})
    returns = evaluator.evaluate(
        _policy(),
        environment,
        10,
        False,
        np.random.SeedSequence(0),
        report=sentences.append,
    ).returns
    assert sorted(returns) == [0.0] * 3 + [1.0] * 3 + [2.0] * 2 + [3.0] * 2
    assert len(set(environment.seeds)) == 4
    (sentence,) = sentences
    assert "3 times because they returned bad data (last: a reward is" in sentence


def test_an_environment_that_gives_nothing_else_is_given_up():
    sentences, environment = [], _Spoiling(4, bad=range(5, 10**6))
    returns = evaluator.evaluate(
        _policy(),
        environment,
        10,
        False,
        np.random.SeedSequence(0),
        report=sentences.append,
    ).returns
    assert sorted(returns) == [0.0] * 3 + [1.0, 2.0]
    assert "100 times, then gave up, because they returned bad data" in sentences[0]


def _played(*returns):
    return evaluator.Played(list(returns), [1] * len(returns), {}, [], [])


def test_the_summary():
    summary = evaluator.summarise([1.0, 2.0, 6.0])
    assert summary == (3.0, 2.0, pytest.approx((14 / 3) ** 0.5), 1.0, 6.0, 3)
    for by_task in ({"": _played(1.0, 2.0)}, {"/A": _played(1.0), "/B": _played(2.0)}):
        seed = np.random.SeedSequence(3, spawn_key=(2, 1))
        line = evaluator.as_line(by_task, "final", "greedy", 7, 1, 0.5, seed, {"a": 1})
        names = evaluator.record_names(tuple(by_task))
        assert set(evaluator.as_record(line)) == set(names)
        assert line["seeds"] == ["3", 2, 1]
        assert line["mean"] == 1.5
        assert line["high"] - 1.5 == pytest.approx(12.71 * 0.5)  # Student, 1 degree
        assert 1.5 - line["low"] == pytest.approx(12.71 * 0.5)


def test_the_users_numbers_are_those_of_the_games_that_count():
    class Scores(_Lengths):
        def step(self, action):
            row, end = super().step(action)
            info = {episode_numbers.FINAL: {}}
            for i in np.flatnonzero(~np.isnan(end.episode_return)):
                info[episode_numbers.FINAL][i] = {"score": 10.0 * i} if i else {}
            over = ~np.isnan(end.episode_return)
            return row, end._replace(numbers=self.numbers.take(info, over))

    seed = np.random.SeedSequence(0)
    played = evaluator.evaluate(_policy(), Scores(3), 6, False, seed)
    assert sorted(played.numbers["score"]) == [10.0, 10.0, 20.0, 20.0]


@pytest.mark.parametrize("name", ["Catch", "Pendulum-v1"])
def test_the_random_policy_is_uniform(name):
    settings = builders.config(**{"environment.id": name}).environment
    environment, taken = factory.make(settings, 4), []
    policy = agent.make(builders.config(**{"environment.id": name}), environment.spec)
    act = environment._interface.act
    environment._interface.act = lambda action: taken.append(act(action)) or taken[-1]
    policy = evaluator.RandomPolicy(policy, environment.spec.action)
    evaluator.evaluate(policy, environment, 40, True, np.random.SeedSequence(0))
    environment.close()
    actions = np.concatenate(taken).ravel()
    if name == "Catch":
        share = np.bincount(actions, minlength=3) / len(actions)
        assert share == pytest.approx([1 / 3] * 3, abs=0.1)
    else:  # from -2 to 2
        assert actions.min() < -1.9
        assert actions.max() > 1.9
        assert actions.std() == pytest.approx(4 / 12**0.5, rel=0.05)


def test_the_protocol_names_what_a_return_means():
    config = config_lib.get_base_config()
    config.environment.kwargs = {"rows": 7}
    assert evaluator.protocol(config.environment, True) == (
        "Catch(rows=7), full games, greedy actions"
    )


class _Team(_Lengths):
    """Games of three players of four steps; the last player never takes part."""

    players = labels = ("a", "b", "c")
    specs = (specs.EnvironmentSpec((), (), 1, players=players, waits=True),)

    def step(self, action):
        self._age += 1
        over = self._age == 4
        self._age[over] = 0
        played = over & (np.arange(self.num_envs) % 3 < 2)
        returns = np.where(played, np.arange(self.num_envs), np.nan)
        lengths = np.where(played, 4, 0)
        row = self._row(over | (np.arange(self.num_envs) % 3 == 2))
        return row, types.EpisodeEnd(returns.astype(np.float32), lengths, None)


@pytest.mark.parametrize("episodes", [1, 6, 7])
def test_a_player_that_never_takes_part_is_left_out(episodes):
    environment, steps = _Team(6), []
    policy = agent.make(builders.config(), factory.probe(builders.config().environment))
    seed = np.random.SeedSequence(0)

    def count():
        steps.append(1)
        return True

    played = evaluator.evaluate(policy, environment, episodes, True, seed, count)
    games = -(-episodes // 3)
    assert len(steps) == 4 * -(-games // 2)
    by_label = played.by_label("", environment.labels)
    assert list(by_label) == ["/a", "/b"]
    assert all(len(each.returns) == games for each in by_label.values())
    assert played.by_label("", tuple("abcdefghi")) == {"": played}


class _Reborn(_Lengths):
    """Games of two players; the first dies after two steps and is born again."""

    players = labels = ("a", "b")
    specs = (specs.EnvironmentSpec((), (), 1, players=players, waits=True),)
    bad = ()  # steps with bad data

    def __init__(self, num_envs):
        super().__init__(num_envs)
        self._steps = 0

    def reset(self, seeds):
        self._age[:] = 0
        return super().reset(seeds)

    def step(self, action):
        self._steps += 1
        if self._steps in self.bad:
            raise bad_data.BadData("bad_rewards", "a reward is not finite")
        self._age += 1
        first = self._index % 2 == 0
        over = (self._age == 4) | (first & (self._age == 2))
        self._age[self._age == 4] = 0
        returns = np.where(over, np.where(first, 1.0, 3.0), np.nan)
        lengths = np.where(over, 2, 0)
        return self._row(over), types.EpisodeEnd(returns, lengths, None)


@pytest.mark.parametrize("bad", [(), (4,), (8, 12)])
def test_a_player_born_again_has_several_episodes_in_a_game(monkeypatch, bad):
    monkeypatch.setattr(_Reborn, "bad", bad)
    environment = _Reborn(4)
    policy = agent.make(builders.config(), factory.probe(builders.config().environment))
    seed = np.random.SeedSequence(0)
    played = evaluator.evaluate(policy, environment, 6, True, seed, report=len)
    assert sorted(zip(played.games, played.columns, played.returns, strict=True)) == [
        *((0, 0, 1.0), (0, 0, 1.0), (0, 1, 3.0)),
        *((1, 2, 1.0), (1, 2, 1.0), (1, 3, 3.0)),
        *((2, 0, 1.0), (2, 0, 1.0), (2, 1, 3.0)),
    ]
    by_label = played.by_label("", environment.labels)
    assert by_label["/a"].games == [0, 0, 1, 1, 2, 2]
    assert by_label["/b"].games == [0, 1, 2]
