"""The final evaluation, and what a training prints at its end."""

import json
import shlex
import shutil
import sys
import types

import gymnasium
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from impala_mp import errors
from impala_mp.environments import catch
from impala_mp.evaluation import conclusion, evaluate
from impala_mp.runtime import program
from impala_mp.storage import evaluations, workdir
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
    (curve,) = (line for line in lines if line.startswith("Learning curve:"))
    assert "none; no full game has ended" in curve


def test_the_evaluation_comes_before_the_learning_curve(tmp_path, capsys, monkeypatch):
    def plot(*unused, **others):
        print("a plot")

    monkeypatch.setattr(conclusion.curves, "plot", plot)
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
    commands = [shlex.split(line.partition(":")[2]) for line in lines[-2:]]
    assert commands[0][0] == str(there / "tensorboard")
    assert commands[1][0] == str(there / "impala-eval")
    for words in commands:
        assert words[1].endswith("=" + str(tmp_path / "a run"))
    monkeypatch.setenv("PATH", str(there))
    assert conclusion.command("impala-eval") == "impala-eval"
    assert conclusion.command("nowhere") == "nowhere"


def test_a_finished_run_keeps_its_evaluations(tmp_path, capsys):
    run = tmp_path / "run"
    lines = _conclusion(run, capsys, builders.short_training())
    final = json.loads((run / "evaluation.json").read_text())
    assert final.keys() == {"greedy", "sampled", "sentence"}
    kept = evaluations.read(str(run))
    assert [(x["purpose"], x["policy"]) for x in kept] == [
        ("final", "sampled"),
        ("final", "greedy"),
        ("progress", "sampled"),  # which chooses the best checkpoint
        ("progress", "random"),
    ]
    assert kept[0] == final["sampled"]
    assert kept[0]["seeds"] != kept[2]["seeds"]
    assert f"mean return {final['sampled']['mean']:.3f}" in lines[0]
    assert f"greedy {final['greedy']['mean']:.3f}" in lines[0]
    assert "Best checkpoint: the newest" in lines
    for which in ("best", "newest", 10):
        found = evaluate.evaluate(str(run), 10, which=which)
        assert found["mean"] == final["sampled"]["mean"]
        assert found["low"] == final["sampled"]["low"]
    with pytest.raises(errors.BadInput, match="It has newest, best, 10"):
        evaluate.evaluate(str(run), 10, which=7)


def test_a_policy_is_kept_by_its_config_and_its_best_checkpoint(tmp_path, capsys):
    run, kept = tmp_path / "run", tmp_path / "kept"
    _conclusion(run, capsys, builders.short_training())
    shutil.copytree(run / "checkpoints" / "best", kept / "checkpoints" / "best")
    shutil.copy(run / "config.json", kept)
    expected = evaluate.evaluate(str(run), 10, which="best")
    assert evaluate.evaluate(str(kept), 10, which="best") == expected
    with pytest.raises(errors.BadInput, match="only its best .* --checkpoint=best"):
        evaluate.evaluate(str(kept), 10)
    with pytest.raises(errors.BadInput, match="It has best. Name"):
        evaluate.evaluate(str(kept), 10, which=7)


def test_the_film_of_the_final_policy(tmp_path, capsys):
    config = builders.short_training(**{"evaluation.film": True})
    lines = _conclusion(tmp_path / "run", capsys, config)
    assert f"Film:            {tmp_path / 'run' / 'film.gif'}" in lines
    assert (tmp_path / "run" / "film.gif").stat().st_size > 1000
    config = builders.short_training(**{"evaluation.film": False})
    lines = _conclusion(tmp_path / "other", capsys, config)
    assert not any("Film" in line for line in lines)


def _result(mean, half, games=10):
    interval = {"low": mean - half, "high": mean + half}
    return {"mean": mean, "episodes": games, **interval}


def test_tensorboard_has_final_evaluations_of_these_steps_alone(tmp_path):
    """Action values have one line an end; the run was extended from 50 to 90 steps."""
    line = {"updates": 1, "time_secs": 1.0, **_result(5.0, 1.0)}
    for steps, policy, purpose, mean in (
        (50, "greedy", "final", 1.0),
        (50, "greedy", "progress", 2.0),
        (90, "sampled", "final", 3.0),
        (90, "sampled", "progress", 4.0),
    ):
        own = {"policy": policy, "agent_steps": steps, "purpose": purpose}
        evaluations.append(str(tmp_path), {**line, **own, "mean": mean})
    run = types.SimpleNamespace(path=str(tmp_path), agent_steps=90)
    conclusion._show_in_tensorboard(run)
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["evaluation/final_sampled"]
    (found,) = events.Scalars("evaluation/final_sampled")
    assert (found.step, found.value) == (90, 3.0)


def test_a_difference_beyond_chance_is_a_sentence():
    def words(greedy, sampled):
        lines = {"greedy": greedy, "sampled": sampled}
        return conclusion._difference(lines, "config.schedules.entropy_cost")

    assert "with a lower config.schedules.entropy_cost." in (
        words(_result(9.0, 1.0), _result(4.0, 1.0))
    )
    assert words(_result(9.0, 0.0, 1), _result(4.0, 0.0, 1)) == ""
    assert words(_result(5.0, 1.0), _result(4.0, 1.0)) == ""
    assert "Greedy actions are better" in words(_result(9.0, 1.0), _result(4.0, 1.0))
    assert "Sampled actions are better" in words(_result(1.0, 1.0), _result(4.0, 1.0))


def test_other_arguments_in_evaluations(tmp_path, capsys):
    """Full games in twice as many rows take twice as long."""
    config = builders.short_training("EndlessGame-v0", **{"evaluation.episodes": 3})
    config.evaluation.environments = 3
    config.evaluation.kwargs = {"always": True}
    lines = _conclusion(tmp_path / "run", capsys, config)
    assert lines[0].startswith("none; no game has ended")
    stored = workdir.read_config(str(tmp_path / "run"))
    assert stored.evaluation.kwargs.to_dict() == {"always": True}
    config.evaluation.kwargs = {"rows": 20}
    with pytest.raises(errors.BadInput, match="change what the policy sees"):
        program.train(config, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
