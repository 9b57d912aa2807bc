"""The wheel: what is in it, and what it does in an empty folder."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

import impala_mp

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def _pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_the_wheel_in_an_empty_folder(tmp_path):
    """One test: pip builds in the checkout, so that two would meet."""
    _pip("wheel", "-q", "--no-deps", "-w", str(tmp_path / "wheel"), str(_ROOT))
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    _check_names(wheel)
    # The package alone; everything else is this environment's.
    installed = tmp_path / "installed"
    _pip("install", "-q", "--no-deps", "--target", str(installed), str(wheel))
    (tmp_path / "empty").mkdir()
    _train_by_name(installed, tmp_path / "empty")


def _check_names(wheel):
    """Presets, template and the marker of types are in it; nothing else is."""
    assert f"-{impala_mp.__version__}-" in wheel.name
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for folder in ("impala_mp", "experiments"):
        for path in (_ROOT / folder).rglob("*"):
            is_whole = path.is_file() and "__pycache__" not in path.parts
            name = path.relative_to(_ROOT).as_posix()
            if folder == "experiments":
                name = f"impala_mp/{name}"
            assert not is_whole or name in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"impala_mp", f"impala_mp-{impala_mp.__version__}.dist-info"}


def _train_by_name(installed, folder):
    def run(name, *arguments):
        command = [sys.executable, "-m", f"impala_mp.cli.{name}", *arguments]
        env = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=env
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = run("train", "--list").splitlines()[0]
    assert listed.startswith("Presets, ")
    assert listed.endswith(f" in {installed}/impala_mp/experiments:")
    run("train", "catch", "--config.total_agent_steps=6400")
    (made,) = (folder / "runs" / "Catch").iterdir()
    assert (made / "learning_curve.png").exists()
    assert '"episodes": 3' in run("evaluate", str(made), "--episodes=3")
    checked = run("train", "minigrid", "--check")
    assert "Box" not in checked
    assert "FAIL" not in checked
