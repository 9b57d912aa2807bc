"""Presets: names and summaries, read without execution; environments, variants."""

import os

import pytest

from impala_mp.config import presets


def test_every_experiment_is_a_preset():
    names = {each.name for each in presets.presets()}
    assert {"catch", "cartpole", "minatar", "atari"} <= names
    for each in presets.presets():
        assert os.path.isfile(each.path)
        assert each.summary.endswith(".")
        assert presets.named(each.name) == each
    assert presets.named("none") is None


def test_variants_are_those_that_the_file_takes():
    assert {"lstm", "none"} < set(presets.variants(presets.named("recall")))
    assert presets.variants(presets.named("catch")) == ()  # takes none
    assert presets.variants(presets.named("atari")) == ()  # takes any game


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("CartPole-v1", ("cartpole", "")),
        ("Catch", ("catch", "")),
        ("MinAtar/Breakout-v1", ("minatar", "Breakout")),
        ("ALE/MsPacman-v5", ("atari", "MsPacman")),
        ("ale_py:ALE/Pong-v5", ("atari", "Pong")),
        ("Walker2d-v5", ("mujoco", "Walker2d")),
        ("gymnasium:Walker2d-v5", ("mujoco", "Walker2d")),
        ("Mine-v5", None),  # the preset's file names its variants
        ("CartPole-v0", None),
        ("MinAtar/Breakout-v0", None),
        ("Acrobot-v1", None),
        ("my_game:Catch", None),  # the user's class
        ("my_robots:Ant-v5", None),
        ("my_games:ALE/Pong-v5", None),
        ("CartPole-v1,my_game:Catch", None),
        ("", None),
    ],
)
def test_the_preset_of_an_environment(environment, expected):
    found = presets.for_environment(environment)
    assert (found and (found[0].name, found[1])) == expected


@pytest.mark.parametrize(
    ("package", "path", "name"),
    [
        ("site/impala_mp", "site/impala_mp/experiments/battle.py", "impala_mp.{}"),
        ("impala_mp/impala_mp", "impala_mp/experiments/battle.py", "{}"),  # a clone
        ("clone/impala_mp", "clone/experiments/battle.py", "{}"),
        ("site/impala_mp", "elsewhere/experiments/battle.py", "{}"),
    ],
)
def test_an_experiment_knows_its_module(tmp_path, monkeypatch, package, path, name):
    monkeypatch.setattr(presets, "_PACKAGE", str(tmp_path / package))
    found = presets.module_of(str(tmp_path / path))
    assert found == name.format("experiments.battle")


def test_a_copy_of_an_experiment_has_the_name_that_the_current_folder_gives(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert presets.module_of("my_battle.py") == "my_battle"
    assert presets.module_of(str(tmp_path / "mine" / "old" / "b.py")) == "mine.old.b"
    (tmp_path / "linked").symlink_to(presets.folder())
    assert presets.module_of("linked/battle.py") == "linked.battle"


def test_an_installed_package_has_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "_PACKAGE", str(tmp_path))
    assert presets.folder() == os.path.join(os.path.dirname(tmp_path), "experiments")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(
        '"""Mine: of v1.5 steps. More."""\nraise SystemExit\nENVIRONMENT = "A.{}-v1"\n'
    )
    (mine,) = presets.presets()
    assert (mine.name, mine.summary) == ("mine", "Mine: of v1.5 steps.")
    assert mine.variant("A.b-v1") == "b"
    assert mine.variant("Axb-v1") is None
