"""WHAT of impala-train: a preset, an environment, or the folder of a run."""

import itertools
import json
import os
import re
import sys

import pytest
import torch

from impala_mp import config as config_lib, errors
from impala_mp.cli import command_line, what
from impala_mp.config import presets, user_code
from impala_mp.storage import checkpoint
from tests.support import lockstep_runs


def _preset(name):
    return os.path.join(presets.folder(), f"{name}.py")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("catch", _preset("catch")),
        ("minatar:Asterix", f"{_preset('minatar')}:Asterix"),
        ("MinAtar/Asterix-v1", f"{_preset('minatar')}:Asterix"),
        ("CartPole-v1", _preset("cartpole")),
        ("Acrobot-v1", "environment=Acrobot-v1"),
        ("my_game:MyGame-v0", "environment=my_game:MyGame-v0"),
        ("my_game:make", "environment=my_game:make"),
        ("my_game:Catch", "environment=my_game:Catch"),
    ],
)
def test_what_is_named(name, expected):
    assert what.resolve(name) == (expected, "")
    arguments = ["--check", name, "--config.seed=3"]
    named, changes, left = what.take(arguments)
    assert (named.config, changes) == (expected, [])
    assert left == [f"--config={expected}", "--check", "--config.seed=3"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cath"], r"no preset 'cath'\. Did you mean 'catch'\?"),
        (["experiments/catch.py"], "is a file. Use --config=experiments/catch.py"),
        (["catch", "recall"], "'recall' is a second thing to train"),
        (["catch", "--config=x.py"], "--config and WHAT exclude each other"),
        (["catch", "--change.network.core=lstm"], "network.core cannot change during"),
        (["catch", "--change.loss.popart=True"], "loss.popart cannot change during"),
        (
            ["catch", "--change.optimizer.learning_rat=1"],
            "mean 'optimizer.learning_rate'",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        what.take(arguments)


def test_a_folder_that_is_no_run_does_not_hide_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("catch", "other"):
        os.makedirs(name)
    assert what.resolve("catch") == (_preset("catch"), "")
    with pytest.raises(errors.BadInput, match="other has no config.json"):
        what.resolve("other")
    (tmp_path / "catch" / "config.json").touch()
    assert what.resolve("catch") == ("run=catch", "catch")
    assert what.take(["--nocheck", "pendulum"])[0].config == _preset("pendulum")


def test_values_of_flags_are_not_what():
    arguments = ["--workdir", "runs/x", "--config", "catch.py", "--config.seed", "1"]
    assert what.take(arguments) == (what.What(""), [], arguments)
    for switch in (
        *("--detach", "--config.loss.popart", "--noconfig.loss.popart"),
        *("--config.policies.red.loss.popart", "--change.evaluation.film"),
    ):
        assert what.take([switch, "catch"])[0].config == _preset("catch")
    with pytest.raises(errors.BadInput, match="preset .* environment .* folder of a"):
        command_line.load([])


def test_modules_beside_an_experiment_are_found_but_no_presets(tmp_path, monkeypatch):
    """Without its extra, `minigrid` would be the preset of that name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(user_code, "_added", [])
    command_line.load([f"--config={_preset('catch')}"])
    assert presets.folder() not in sys.path
    experiment = tmp_path / "mine.py"
    experiment.write_text("from impala_mp.config import get_base_config as get_config")
    command_line.load([f"--config={experiment}"])
    assert sys.path[-1] == str(tmp_path)


def test_an_environment_without_a_preset_has_the_defaults():
    config = command_line.load(["--config=environment=Acrobot-v1", "--config.seed=4"])
    expected = config_lib.get_base_config()
    expected.environment.id, expected.seed = "Acrobot-v1", 4
    assert config_lib.to_json(config) == config_lib.to_json(expected)


def test_a_new_folder_has_the_name_of_its_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_lib.get_base_config()
    config.environment.id = "my_module:ALE/../Pong v5"
    first = what.new_workdir(config)
    assert re.fullmatch(r"runs/my_module-ALE-..-Pong-v5/\d{4}-\d\d-\d\d_[\d-]+", first)
    os.makedirs(first)
    assert what.new_workdir(config) != first


def test_the_presets_are_listed():
    text = what.listing()
    assert re.search(r"^  minatar +MinAtar/NAME-v1 +MinAtar ", text, re.MULTILINE)
    assert max(map(len, text.splitlines()[1:])) < 140
    cartpole = r"^  cartpole .*\n +:\{vtrace,dqn,apex,pqn[^}]*\}$"
    assert re.search(cartpole, text, re.MULTILINE)
    assert re.search(r"^  catch .*\n  \w", text, re.MULTILINE)  # it has none


@pytest.mark.parametrize("preset", presets.presets(), ids=lambda each: each.name)
def test_braces_are_the_variants(preset):
    """Expands the braces as a shell does: all variants come out, each once."""
    variants = presets.variants(preset)
    parts = [part.strip(" :{}").split(",") for part in what._braces(variants)]
    found = ["".join(words) for words in itertools.product(*parts)] if parts else []
    assert sorted(found) == sorted(variants)


def test_variants_that_are_no_product_are_a_list():
    assert what._braces(("a-x", "b", "b-x")) == [":{a-x,b,b-x}"]


@pytest.mark.integration
def test_a_run_goes_on_with_another_learning_rate(tmp_path):
    """It is the one that the optimizer takes, and the change is journaled."""
    run = tmp_path / "run"
    lockstep_runs.train(run, total_agent_steps=560)
    named, changes, left = what.take(
        [str(run), "--change.optimizer.learning_rate=1e-9"]
    )
    assert named.workdir == str(run)
    config = command_line.load([*left, "--config.total_agent_steps=1120"])
    before = checkpoint.load_newest(str(run / "checkpoints"), print)
    lockstep_runs.program.train(config, str(run), changes=changes)
    after = checkpoint.load_newest(str(run / "checkpoints"), print)
    assert after["learner"]["updates"] == 2 * before["learner"]["updates"]
    for name, values in before["learner"]["parameters"].items():
        assert torch.allclose(values, after["learner"]["parameters"][name], atol=1e-6)
    (line,) = (run / "changes.jsonl").read_text().splitlines()
    line = json.loads(line)
    assert (line["name"], line["to"]) == ("optimizer.learning_rate", 1e-9)
    assert line["update"] == before["learner"]["updates"]
    again = command_line.load([f"--config=run={run}"])
    assert again.optimizer.learning_rate == 1e-9
    again.optimizer.learning_rate = 1.0
    with pytest.raises(errors.BadInput, match="belongs to another config"):
        lockstep_runs.program.train(again, str(run))
    with pytest.raises(errors.BadInput, match="no run in .* to change"):
        lockstep_runs.program.train(again, str(tmp_path / "new"), changes=["seed"])
