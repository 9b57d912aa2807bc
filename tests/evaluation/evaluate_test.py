"""The final evaluation, and what a training prints at its end."""

import shlex
import sys

import gymnasium
import numpy as np
import pytest

from impala_mp import errors
from impala_mp.environments import catch
from impala_mp.evaluation import evaluate
from impala_mp.runtime import program
from tests.support import builders

pytestmark = pytest.mark.integration


class Endless(catch.CatchVectorEnv):
    """Its episodes end only in training, and not even there if `always`."""

    def __init__(self, num_envs, always=False, **kwargs):
        super().__init__(num_envs, **kwargs)
        self._endless = always or num_envs == 5  # those of the evaluation

    def step(self, actions):
        observation, reward, terminated, *rest = super().step(actions)
        return observation, reward, terminated & ~self._endless, *rest


class Spoiled(catch.CatchVectorEnv):
    """Gives a reward that is not a number, once in a while."""

    def step(self, actions):
        observation, reward, *rest = super().step(actions)
        if self._rng.random() < 0.02:
            reward = reward * np.nan
        return observation, reward, *rest


gymnasium.register("EndlessGame-v0", vector_entry_point=Endless)
gymnasium.register("SpoiledGame-v0", vector_entry_point=Spoiled)


def _conclusion(path, capsys, config):
    program.train(config, str(path))
    return capsys.readouterr().out.partition("Final evaluation: ")[2].splitlines()


def test_a_training_in_which_no_game_ended_ends_well(tmp_path, capsys):
    config = builders.short_training("EndlessGame-v0")
    config.environment.kwargs.always = True
    lines = _conclusion(tmp_path / "run", capsys, config)
    assert lines[0].startswith(
        "none; no game has ended. 10 of 10 games are not counted"
    )
    assert "Raise config.evaluation.max_steps" in lines[0]
    assert "Learning curve: none; no full game has ended" in lines[2]


def test_the_evaluation_comes_before_the_learning_curve(tmp_path, capsys, monkeypatch):
    def plot(*unused):
        print("a plot")

    monkeypatch.setattr(evaluate.curves, "plot", plot)
    lines = _conclusion(tmp_path / "run", capsys, builders.short_training())
    assert lines[0].startswith("mean return")
    assert "a plot" in lines


def test_the_final_evaluation_survives_bad_data(tmp_path, capsys):
    config = builders.short_training("SpoiledGame-v0", **{"evaluation.episodes": 100})
    program.train(config, str(tmp_path / "run"))
    out, err = capsys.readouterr()
    assert "over 100 episodes" in out
    assert "The evaluation restarted its environments" in err


def test_an_evaluation_without_an_end_is_refused_by_impala_eval(tmp_path, capsys):
    program.train(builders.short_training("EndlessGame-v0"), str(tmp_path / "run"))
    with pytest.raises(errors.BadInput, match="no game has ended"):
        evaluate.evaluate(str(tmp_path / "run"), 5)
    assert evaluate.evaluate(str(tmp_path / "run"), 3)["episodes"] == 3


def test_the_next_commands_can_be_copied_into_any_shell(tmp_path, monkeypatch, capsys):
    there = tmp_path / "an environment" / "bin"
    there.mkdir(parents=True)
    for name in ("python", "impala-eval", "tensorboard"):
        (there / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(there / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = _conclusion(tmp_path / "a run", capsys, builders.short_training())
    commands = [shlex.split(line.partition(":")[2]) for line in lines[3:]]
    assert commands[0][0] == str(there / "tensorboard")
    assert commands[1][0] == str(there / "impala-eval")
    for words in commands:
        assert words[1].endswith("=" + str(tmp_path / "a run"))
    monkeypatch.setenv("PATH", str(there))
    assert evaluate.command("impala-eval") == "impala-eval"
    assert evaluate.command("nowhere") == "nowhere"
