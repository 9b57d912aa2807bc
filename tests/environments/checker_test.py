"""A healthy environment passes; each rule is broken by an environment made for it."""

import pathlib
import re

import gymnasium
import numpy as np
import pytest

from impala_mp.environments import checker
from tests.support import builders, faulty_environments


def _check(config):
    return {finding.subject: finding for finding in checker.check(config)}


_SUBJECTS = {
    "actions",
    "observations",
    "rewards",
    "episodes",
    "speed",
    "determinism",
    "autoreset",
}


@pytest.mark.parametrize(
    "config",
    [
        faulty_environments.config(),
        faulty_environments.config("FaultyVector"),
        faulty_environments.config(**{"actors.environments": 1, "batch_size": 1}),
        builders.config(**{"environment.id": "CartPole-v1"}),
        builders.config(**{"environment.id": "Recall"}),
    ],
    ids=["single", "vector", "one", "CartPole", "Recall"],
)
def test_nothing_is_found_in_a_healthy_environment(config):
    found = _check(config)
    assert found.keys() == _SUBJECTS
    assert {f.verdict for f in found.values()} == {checker.OK}, found


@pytest.mark.parametrize(
    ("fault", "subject", "verdict", "words"),
    [
        ("reset raises", "environment", "FAIL", "ValueError: no level to start ("),
        ("step raises", "environment", "FAIL", "ValueError: no level to go on with ("),
        ("old reset", "environment", "FAIL", "reset() returns a ndarray"),
        ("old step", "environment", "FAIL", "step() returns 4 values"),
        ("shape", "environment", "FAIL", "has shape [1]. By observation_space"),
        ("complex", "environment", "FAIL", "is complex64. By observation_space"),
        ("not finite", "observations", "FAIL", "values are not finite"),
        ("float64", "observations", "warning", "are float64 and are cast"),
        ("outside", "observations", "warning", "are outside observation_space"),
        ("reward", "rewards", "FAIL", "are not finite"),
        ("endless", "episodes", "warning", "none ended in"),
        ("unseeded", "determinism", "warning", "in the observation of copy 0 after"),
    ],
)
def test_faults_of_single_copies_are_found(fault, subject, verdict, words):
    found = _check(faulty_environments.config(fault=fault))
    assert found[subject].verdict == verdict
    assert words in found[subject].text
    others = {f.verdict for s, f in found.items() if s not in (subject, "autoreset")}
    assert others <= {checker.OK}, found


@pytest.mark.parametrize(
    ("fault", "subject", "words"),
    [
        ("reward after the end", "autoreset", "but has reward 1"),
        ("end after the end", "autoreset", "but is another end"),
        ("action after the end", "autoreset", "makes a difference in the observation"),
        ("float ends", "environment", "truncated is float32 [2]"),
        ("reward shape", "environment", "rewards are float64 [2, 1]"),
        ("float64", "environment", "is float64. By observation_space"),
    ],
)
def test_faults_of_vector_environments_are_found(fault, subject, words):
    found = _check(faulty_environments.config("FaultyVector", fault))
    assert found[subject].verdict == checker.FAIL
    assert words in found[subject].text


def test_an_episode_that_ends_late_is_waited_for_and_its_reset_seen():
    found = _check(faulty_environments.config(fault="late"))
    assert "2 ended in 802 random steps" in found["episodes"].text
    assert found["autoreset"].verdict == checker.OK


def test_without_an_episodes_end_its_autoreset_is_not_seen():
    found = _check(faulty_environments.config(fault="endless"))
    assert found["autoreset"].verdict == checker.WARNING
    assert "not seen" in found["autoreset"].text


def test_another_autoreset_mode_and_another_space_are_failures():
    found = _check(builders.config(**{"environment.id": "NoNextStep-v0"}))
    assert "AutoresetMode.NEXT_STEP" in found["environment"].text
    assert "BadInput" not in found["environment"].text
    wordy = "tests.support.counting:Wordy-v0"
    found = _check(builders.config(**{"environment.id": wordy}))
    assert "observation space" in found["environment"].text
    assert found["environment"].verdict == checker.FAIL


def test_an_exception_is_named_with_the_users_line():
    text = _check(faulty_environments.config(fault="numpy raises"))["environment"].text
    path, line = re.search(r"\((.*):(\d+), in step\)$", text).groups()
    source = pathlib.Path(path).read_text().splitlines()[int(line) - 1]
    assert "np.stack([])" in source


class _Listed(gymnasium.Env):
    """Observes lists, alone or in a Dict."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, nested):
        self._nested, box = nested, gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(x=box) if nested else box

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        return self._observation(), {}

    def _observation(self):
        return {"x": [self._time, 0.5]} if self._nested else [self._time, 0.5]

    def step(self, action):
        self._time += 1
        reward = float(self.np_random.normal())
        return self._observation(), reward, self._time == 5, False, {}


class _ListedVector(faulty_environments.FaultyVector):
    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return list(observation.astype(np.float64)), info

    def step(self, actions):
        observation, *rest = super().step(actions)
        return observation.tolist(), *rest


gymnasium.register("Listed-v0", _Listed)
gymnasium.register("ListedVector-v0", vector_entry_point=_ListedVector)


@pytest.mark.parametrize(
    ("name", "kwargs", "subject"),
    [
        ("Listed-v0", {"nested": False}, "observations"),
        ("Listed-v0", {"nested": True}, "x"),
        ("ListedVector-v0", {}, "observations"),
    ],
)
def test_lists_are_cast_as_in_training(name, kwargs, subject):
    made = builders.config(**{"environment.id": name})
    made.environment.kwargs = kwargs
    found = _check(made)
    assert found[subject].verdict == checker.WARNING
    assert "are float64 and are cast" in found[subject].text
    assert "Return numpy.asarray(observation, numpy.float32)." in found[subject].text
    assert {f.verdict for s, f in found.items() if s != subject} == {checker.OK}, found


def flattened(num_envs):
    inner = gymnasium.vector.SyncVectorEnv([faulty_environments.Faulty] * num_envs)
    stacked = gymnasium.spaces.Box(-1.0, 1.0, (2, 2))
    return gymnasium.wrappers.vector.TransformObservation(
        inner, lambda rows: np.stack([rows, rows], -1), single_observation_space=stacked
    )


def test_a_wrapper_of_a_vector_is_checked_by_its_own_space():
    found = _check(builders.config(**{"environment.id": f"{__name__}:flattened"}))
    assert {f.verdict for f in found.values()} == {checker.OK}, found
    assert found["observations"].text.startswith("float32 [2, 2]; ")


def test_ends_of_0_and_1_are_no_fault():
    found = _check(faulty_environments.config("FaultyVector", "int ends"))
    assert "environment" not in found
    assert found["episodes"].verdict == checker.OK


class _Lonely(gymnasium.Env):
    """Gives what `give` returns, and writes into its action if `spoils`."""

    observation_space = gymnasium.spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = gymnasium.spaces.MultiBinary(2)
    board = np.zeros(2, np.float32)  # one for all copies
    fault = ""

    def reset(self, *, seed=None, options=None):
        self._time = 0
        return self._look(), {}

    def step(self, action):
        self._time += 1
        if self.fault == "action":
            action ^= 1
        reward = 1e39 if self.fault == "reward" else float(self._time % 2)
        return self._look(), reward, self._time == 5, False, {}

    def _look(self):
        if self.fault in ("shared", "hidden"):
            self.board += 1.0
            self.board %= 50.0
            return self.board if self.fault == "shared" else np.array(self.board)
        if self.fault == "large":
            return np.full(2, 1e39)
        return np.full(2, self._time, np.float32)


gymnasium.register("Lonely-v0", _Lonely)


@pytest.mark.parametrize(
    ("fault", "subject", "verdict", "words"),
    [
        ("action", "actions", checker.WARNING, "changes the array that it is given"),
        ("shared", "copies", checker.FAIL, "a step of one changes it for the others"),
        ("hidden", "copies", checker.FAIL, "they share _Lonely.board"),
        ("reward", "rewards", checker.FAIL, "not finite as float32"),
        ("large", "environment", checker.FAIL, "does not fit the space of float32"),
    ],
)
def test_what_copies_do_to_arrays(monkeypatch, fault, subject, verdict, words):
    monkeypatch.setattr(_Lonely, "fault", fault)
    findings = checker.check(builders.config(**{"environment.id": "Lonely-v0"}))
    assert any(
        each[:2] == (verdict, subject) and words in each.text for each in findings
    ), findings
    if fault == "action":  # the tape keeps what was given
        assert all(each.verdict == checker.OK for each in findings[2:])


def test_an_ordinary_environment_shares_nothing():
    findings = checker.check(builders.config(**{"environment.id": "Lonely-v0"}))
    assert not [each for each in findings if each.subject == "copies"]
    assert not [each for each in findings if each.verdict == checker.FAIL]
