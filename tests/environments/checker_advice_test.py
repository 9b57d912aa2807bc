"""What `--check` says of actions and rewards; the rest is in checker_test."""

import random
import re

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from impala_mp.environments import checker
from tests.support import builders

_ACTIONS = {
    "discrete": spaces.Discrete(3),
    "one": spaces.Discrete(1, start=4),
    "box": spaces.Box(-2.0, 1.0, (2,)),
    "wide": spaces.Box(-1.0, 5000.0, (2,)),
    "open": spaces.Box(-np.inf, np.inf, (1,)),
    "half open": spaces.Box(np.array([0.0, -1.0]), np.array([1.0, np.inf])),
    "nested": spaces.Dict(
        {"arm": spaces.Tuple([spaces.MultiBinary(2), spaces.Box(-1e6, 1e6, (1,))])}
    ),
    "whole": spaces.Dict({"legs": spaces.Box(0, 5, (2,), np.int32)}),
    "long": spaces.Box(-1.0, 1.0, (2,), np.longdouble),
    "fixed": spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 1.0])),
}


class Plain(gymnasium.Env):
    """Episodes of 5 steps (or 4 to 6), with the actions and rewards that are named."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, actions="discrete", rewards="small"):
        self.action_space = _ACTIONS[actions]
        self._rewards = rewards

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        varies = self._rewards in ("length", "silent")
        self._left = int(self.np_random.integers(4, 7)) if varies else 5
        return self._observation(), {}

    def step(self, action):
        self._left -= 1
        reward = float(self.np_random.normal())
        if self._rewards in ("constant", "length"):
            reward = -1.0
        if self._rewards == "silent":
            reward = 0.0
        if self._rewards == "large":
            reward *= 1000.0
        return self._observation(), reward, self._left == 0, False, {}

    def _observation(self):
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)


gymnasium.register("Plain-v0", Plain)


class Large(Plain):
    """Observations of a named size and dtype, in a space without bounds."""

    def __init__(self, size, shape=(3,), dtype="float32"):
        super().__init__()
        self._given = np.full(shape, size, dtype)
        self.observation_space = spaces.Box(
            -np.inf if dtype == "float32" else 0,
            np.inf if dtype == "float32" else 255,
            shape,
            np.dtype(dtype),
        )

    def _observation(self):
        return self._given.copy()


gymnasium.register("Large-v0", Large)


@pytest.mark.parametrize(
    ("kwargs", "overrides", "warned"),
    [
        ({"size": 1e8}, {}, True),
        ({"size": 1e8}, {"network.normalise_observations": True}, False),
        ({"size": 50.0}, {}, False),
        ({"size": 255.0, "shape": (40, 40, 3)}, {}, True),
        ({"size": 1.0, "shape": (40, 40, 3)}, {}, False),
        ({"size": 255, "shape": (40, 40, 3), "dtype": "uint8"}, {}, False),
    ],
)
def test_large_values_without_normalisation_are_a_warning(kwargs, overrides, warned):
    config = builders.config(**{"environment.id": f"{__name__}:Large", **overrides})
    config.environment.kwargs = kwargs
    found = {finding.subject: finding for finding in checker.check(config)}
    finding = found["observations"]
    assert (finding.verdict == checker.WARNING) == warned, finding.text
    assert ("normalise_observations=True" in finding.text) == warned


def _check(overrides=None, **kwargs):
    config = builders.config(**{"environment.id": "Plain-v0", **(overrides or {})})
    config.environment.kwargs = kwargs
    return {finding.subject: finding for finding in checker.check(config)}


@pytest.mark.parametrize(
    ("actions", "subject", "verdict", "words"),
    [
        ("discrete", "actions", "ok", "one of 3 actions."),
        ("one", "actions", "warning", "one of 1 actions: with a single action nothing"),
        ("box", "actions", "ok", "float32 [2] from -2 to 1."),
        ("wide", "actions", "warning", "An action moves by 25 when its mean moves"),
        ("open", "actions", "warning", "rarely goes beyond 3"),
        (
            "half open",
            "actions",
            "warning",
            "float32 [2] from -1 to inf: not all bounds",
        ),
        ("nested", "actions arm/0", "ok", "[2] binary actions."),
        ("nested", "actions arm/1", "warning", "moves by 1e+04 when"),
        (
            "whole",
            "environment",
            "FAIL",
            "at 'legs' has dtype int32. It must be a float",
        ),
        ("long", "environment", "FAIL", "has dtype float128. It must be a float"),
        ("fixed", "environment", "FAIL", "leaves no choice at [1], because its bounds"),
    ],
)
def test_findings_about_actions(actions, subject, verdict, words):
    found = _check(actions=actions)
    assert found[subject].verdict == verdict
    assert words in found[subject].text
    others = {
        f.verdict for f in found.values() if not f.subject.startswith(subject[:7])
    }
    assert others <= {checker.OK}, found


_LARGE = "drown the policy gradient. Set config.loss.popart=True"
_CLIP = {"loss.reward_clipping": "abs_one"}


@pytest.mark.parametrize(
    ("rewards", "overrides", "verdict", "words"),
    [
        ("small", {}, "ok", "steps."),
        ("large", {}, "warning", _LARGE),
        ("large", _CLIP, "ok", "steps."),
        ("large", {"loss.popart": True}, "ok", "steps."),
        ("constant", {}, "warning", "had the same length (5 steps). No action"),
        ("length", {}, "ok", "had this reward, so only the episode length matters."),
        ("silent", {}, "ok", "rewards are rare or missing."),
    ],
)
def test_findings_about_rewards(rewards, overrides, verdict, words):
    found = _check(overrides, rewards=rewards)["rewards"]
    assert found.verdict == verdict
    assert found.text.endswith(words) or verdict == checker.WARNING
    assert words in found.text


def test_the_rewards_of_resets_are_not_looked_at():
    """They are 0, and would hide that the others are all the same."""
    text = _check(rewards="length")["rewards"].text
    assert text.startswith("from -1 to -1 in ")


def test_each_of_several_tasks_is_looked_at():
    ids = (
        "tests.environments.tasks_test:TaskA-v0, tests.environments.tasks_test:TaskB-v0"
    )
    found = _check({"environment.id": ids})
    assert found["actions/TaskA-v0"].text == "one of 3 actions."
    assert found["actions/TaskB-v0"].text == "one of 4 actions."
    assert found["observations/TaskB-v0"].text.startswith("uint8 [5, 4, 6]; ")
    assert len(found) == 2 * 7


class _Forbidding(gymnasium.Env):
    """One of 3 actions is forbidden, which `not` says; a Text comes first by name."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        {
            "mission": spaces.Text(20),
            "not": spaces.MultiBinary(3),
            "x": spaces.Box(-1.0, 1.0, (2,)),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = 5
        return self._observation(), {}

    def step(self, action):
        if self._not[action]:
            raise ValueError(f"illegal move {action}")
        self._left -= 1
        reward = float(self.np_random.normal())
        return self._observation(), reward, self._left == 0, False, {}

    def _observation(self):
        self._not = np.eye(3, dtype=np.int8)[self.np_random.integers(3)]
        x = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return {"mission": "go", "not": self._not, "x": x}


class _Allowing(gymnasium.ObservationWrapper):
    """Turns what is forbidden into what is allowed, under the same name."""

    def observation(self, observation):
        return {**observation, "not": 1 - observation["not"]}


def forbidding():
    return _Allowing(_Forbidding())


def _check_forbidding(key):
    config = builders.config(
        **{
            "environment.id": f"{__name__}:forbidding",
            "environment.ignored": ("mission",),
            "agent.action_mask_key": key,
        }
    )
    return {finding.subject: finding for finding in checker.check(config)}


def test_a_mask_that_a_wrapper_makes_is_played_by():
    found = _check_forbidding("not")
    assert {finding.verdict for finding in found.values()} == {checker.OK}, found
    assert "ended in" in found["episodes"].text


@pytest.mark.parametrize(
    ("key", "words"),
    [("may", "'may'.* is no part of the observation"), ("x", "'x'.* has 2 elements")],
)
def test_a_mask_that_does_not_fit_is_reported_as_in_training(key, words):
    (found,) = _check_forbidding(key).values()
    assert found.verdict == checker.FAIL
    assert re.search(words, found.text)


class Gambler(Plain):
    """Observations from global generators."""

    observation_space = spaces.Box(-1.0, 1.0, (3,))

    def _observation(self):
        drawn = [random.random(), np.random.random(), torch.rand(1).item()]
        return np.array(drawn, np.float32)


class Careful(Plain):
    """Rewards of a named size."""

    def __init__(self, size):
        super().__init__()
        self._size = size

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self._size * float(self.np_random.random()), *rest


gymnasium.register("Gambler-v1", Gambler)
gymnasium.register("Careful-v0", Careful)


def test_global_random_numbers_are_named():
    found = _check({"environment.id": f"{__name__}:Gambler-v1"})["determinism"]
    assert found.verdict == checker.WARNING
    assert "global generator of random, numpy, torch" in found.text
    assert "no two actors get the same numbers" in found.text


@pytest.mark.parametrize(
    ("size", "popart", "words"),
    [
        (1e15, True, "PopArt learns returns that vary by 1e-4 to 1e15"),
        (1e-8, True, "PopArt learns returns that vary by 1e-4 to 1e15"),
        (1e8, True, ""),
        (1.0, True, ""),
        (1e8, False, "drown the policy gradient"),
    ],
)
def test_rewards_out_of_reach_are_named(size, popart, words):
    overrides = {"environment.id": f"{__name__}:Careful-v0", "loss.popart": popart}
    found = _check(overrides, size=size)["rewards"]
    assert (found.verdict == checker.WARNING) == bool(words), found.text
    assert words in found.text
