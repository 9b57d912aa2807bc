"""Where a failure in a user's code is reported."""

import os
import subprocess
import sys

import pytest

from impala_mp import errors, nest
from impala_mp.algorithms import losses
from impala_mp.config import user_code


def test_the_deepest_place_outside_of_the_package_is_named():
    with pytest.raises(errors.BadInput) as caught:
        losses.clip_rewards(None, "sign")
    assert os.path.basename(__file__) in user_code.where(caught.value)


def test_the_users_own_code_goes_before_that_of_an_installed_package():
    own = ("/home/me/simulator.py", 7, "step")
    package = ("/usr/lib/python3/site-packages/physics/world.py", 90, "advance")
    ours = (losses.__file__, 3, "clip_rewards")
    assert (
        user_code.place([own, package, ours]) == " (/home/me/simulator.py:7, in step)"
    )
    assert user_code.place([package, ours]).endswith("world.py:90, in advance)")
    assert user_code.place([ours]) == ""


def test_the_config_is_read_without_torch():
    """A second or more of each command that only looks at a run."""
    code = (
        "import pkgutil, importlib, sys, impala_mp.config as c\n"
        "for module in pkgutil.iter_modules(c.__path__, 'impala_mp.config.'):\n"
        "    importlib.import_module(module.name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_traceback_of_the_users_code_has_its_frames_only():
    with pytest.raises(ZeroDivisionError) as caught:
        nest.map_structure(lambda leaf: leaf / 0, (1.0,))  # ours calls the user's
    text = user_code.own_traceback(caught.value)
    assert "leaf / 0" in text
    assert "nest.py" not in text
    assert text.endswith("ZeroDivisionError: float division by zero\n")
    with pytest.raises(TypeError) as caught:
        nest.map_structure(None, (1.0,))  # ours fails
    assert user_code.own_traceback(caught.value) == ""


def test_notes_and_long_messages_hide_neither_error_nor_place():
    try:
        try:
            raise ValueError("x" * 1000)
        except ValueError as error:
            error.add_note("a note")
            raise
    except ValueError as error:
        text = user_code.explain(error)
    assert text.startswith("ValueError: xxx")
    assert "a note" not in text
    assert f"({__file__}:" in text
    assert len(text) < 800


def _of_one(spec):
    return spec


def _of_two(spec, settings):
    return spec, settings


@pytest.mark.parametrize("name", ["_of_one", "pytest", "__doc__"])
def test_a_factory_with_other_arguments_is_refused_before_it_is_called(name):
    with pytest.raises(
        errors.BadInput, match=r"cannot be called .* a function \(a, b\)"
    ):
        user_code.load("network.torso", f"{__name__}:{name}", "(a, b) -> Module")
    found = user_code.load("network.torso", f"{__name__}:_of_two", "(a, b) -> Module")
    assert found is _of_two


def test_a_missing_package_of_games_names_its_extra(monkeypatch):
    for name in [each for each in sys.modules if each.startswith("magent2.")]:
        monkeypatch.delitem(sys.modules, name)  # another test has imported it
    monkeypatch.setitem(sys.modules, "magent2", None)  # as if it were not installed
    name = "magent2.environments.battle_v4:parallel_env"
    with pytest.raises(errors.BadInput, match=r"pip install 'impala_mp\[magent2\]'"):
        user_code.import_module("environment.id", name, name.partition(":")[0])
    with pytest.raises(errors.BadInput, match="put its folder on PYTHONPATH"):
        user_code.import_module("environment.id", "no_such:x", "no_such")


def test_a_module_whose_import_fails_is_not_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "absent_mine.py").write_text("import absent")
    with pytest.raises(ModuleNotFoundError, match="'absent'"):
        user_code.import_module("environment.id", "absent_mine:x", "absent_mine")
    with pytest.raises(errors.BadInput, match="no module 'absent.mine' to import"):
        user_code.import_module("environment.id", "absent.mine:x", "absent.mine")


def test_a_package_called_like_a_library_is_not_part_of_it():
    package = f"{os.path.dirname(errors.__file__)}_games/world.py"
    assert user_code.place([(package, 3, "step")]).endswith("world.py:3, in step)")


def test_a_game_without_its_own_packages_gets_a_sentence(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'pymunk'", name="pymunk")

    monkeypatch.setattr(user_code.importlib, "import_module", fail)
    with pytest.raises(
        errors.BadInput, match="needs the module 'pymunk', which is not"
    ):
        user_code.import_module("environment.id", "pettingzoo.x:env", "pettingzoo.x")
    with pytest.raises(ModuleNotFoundError):
        user_code.import_module("environment.id", "mine:env", "mine")
