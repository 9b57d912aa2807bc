"""A healthy environment passes; each rule is broken by an environment made for it."""

import pathlib
import re

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
        (
            "int ends",
            "environment",
            "terminated is int64. It must be bool. Return terminated.astype",
        ),
        ("float ends", "environment", "truncated is float32. It must be bool"),
        ("reward shape", "environment", "the reward of 2 copies has shape [2, 1]"),
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
