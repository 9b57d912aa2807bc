"""Ends of a training before its last agent step."""

import ml_collections
import numpy as np
import pytest

from impala_mp.evaluation import saved_run
from impala_mp.runtime import program
from impala_mp.workers import stop_rules
from tests.support import builders


def _rules(**settings):
    none = {"target_return": "", "no_progress_steps": 0, "after_secs": 0.0}
    return stop_rules.StopRules(ml_collections.ConfigDict({**none, **settings}))


def _looks(rules, returns):
    for step, each in enumerate(returns, 1):
        rules.look(100 * step, float(step), each)
        if rules.reason:
            return step
    return 0


def test_without_rules_nothing_stops():
    assert _looks(_rules(), [np.nan, 1e9, 0.0]) == 0


@pytest.mark.parametrize("target", ["5", "5.0", "0.5e1"])
def test_at_a_return(target):
    rules = _rules(target_return=target)
    assert _looks(rules, [np.nan, 4.9, 5.0, 6.0]) == 3
    assert "5, has reached config.stop.target_return" in rules.reason


def test_a_target_may_be_negative_or_zero():
    assert _looks(_rules(target_return="-200"), [-300.0, -199.0]) == 2
    assert _looks(_rules(target_return="0"), [-300.0, 0.0]) == 2


def test_without_progress():
    rules = _rules(no_progress_steps=300)
    assert _looks(rules, [1.0, 2.0, 2.0, 1.0, 2.0]) == 5
    assert "has not risen above 2 in the last 300 agent steps" in rules.reason


def test_a_return_that_is_not_known_yet_is_no_lack_of_progress():
    rules = _rules(no_progress_steps=300)
    assert _looks(rules, [np.nan] * 9 + [1.0] * 2) == 0
    assert _looks(rules, [1.0] * 20)


def test_the_best_so_far_survives_a_restart():
    rules = _rules(no_progress_steps=300)
    _looks(rules, [1.0, 2.0, 2.0])
    again = _rules(no_progress_steps=300)
    again.load_state_dict(rules.state_dict())
    again.look(500, 5.0, 2.0)
    assert again.reason


def test_after_some_time():
    assert _looks(_rules(after_secs=2.5), [0.0] * 5) == 3


@pytest.mark.integration
def test_a_run_that_is_stopped_is_finished(tmp_path, capsys):
    config = builders.short_training(
        **{"total_agent_steps": 100_000, "stop.no_progress_steps": 600}
    )
    program.train(config, str(tmp_path / "run"))
    out = capsys.readouterr().out
    assert "The run ended before total_agent_steps: the mean return has not" in out
    assert "Final evaluation: mean return" in out
    run = saved_run.SavedRun(str(tmp_path / "run"))
    assert run.agent_steps < 20_000
    assert run.stopped
    program.train(config, str(tmp_path / "run"))  # as before, and at once
    assert saved_run.SavedRun(str(tmp_path / "run")).agent_steps == run.agent_steps
    config.stop.no_progress_steps = 0
    config.total_agent_steps = run.agent_steps + 300
    program.train(config, str(tmp_path / "run"))
    assert saved_run.SavedRun(str(tmp_path / "run")).agent_steps > run.agent_steps
