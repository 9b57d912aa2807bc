"""A profile has all turns that were asked for, or says what it lacks."""

import json

import pytest
import torch

from impala_mp.monitoring import profiling

_WARM_UP = 11  # turns before the first that is traced


@pytest.fixture
def profile(tmp_path):
    return profiling.of_run(str(tmp_path), "learner", 3)


def _turns(profile, number):
    for _ in range(number):
        torch.ones(2).add_(1.0)
        profile.turn()


def _traced(tmp_path):
    path = tmp_path / "profiles" / "learner.json"
    if not path.exists():
        return None
    events = json.loads(path.read_text())["traceEvents"]
    return sum(event["name"] == "aten::add_" for event in events)


def test_a_profile_has_the_turns_asked_for(profile, tmp_path, capfd):
    _turns(profile, _WARM_UP + 20)
    profile.close()
    assert _traced(tmp_path) == 3
    assert capfd.readouterr().out.count("Profile: ") == 1


def test_a_profile_cut_short_counts_its_turns(profile, tmp_path, capfd):
    _turns(profile, _WARM_UP + 2)
    profile.close()
    assert _traced(tmp_path) == 2
    assert "2 of 3 turns. The run ended." in capfd.readouterr().out


@pytest.mark.parametrize("turns", [0, 5, _WARM_UP])
def test_a_profile_without_a_turn_is_not_written(profile, tmp_path, capfd, turns):
    _turns(profile, turns)
    profile.close()
    assert not torch.autograd._profiler_enabled()
    assert _traced(tmp_path) is None
    assert "was not written: the run ended first." in capfd.readouterr().out


def test_no_profile_says_nothing(tmp_path, capfd):
    profile = profiling.of_run(str(tmp_path), "learner", 0)
    _turns(profile, 30)
    profile.close()
    assert _traced(tmp_path) is None
    assert not capfd.readouterr().out
