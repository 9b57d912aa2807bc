"""Tests of the parts together. Run `pytest` here after every change."""

import pathlib

import experiment

from impala_mp import config as config_lib
from impala_mp.environments import checker
from impala_mp.evaluation import evaluate
from impala_mp.runtime import program


def test_the_environment_keeps_its_contract() -> None:
    found = checker.check(experiment.get_config())
    assert {finding.verdict for finding in found} == {checker.OK}, found


def test_the_config_is_valid() -> None:
    config_lib.validate(experiment.get_config(), num_cores=2)


def test_a_few_updates(tmp_path: pathlib.Path) -> None:
    config = experiment.get_config()
    config.runtime.mode = "lockstep"
    config.total_agent_steps = 5_000
    config.evaluation.episodes = 10
    program.train(config, str(tmp_path))
    result = evaluate.evaluate(str(tmp_path), episodes=10)
    assert result["agent_steps"] >= config.total_agent_steps
    assert -1.0 <= result["mean"] <= 1.0
