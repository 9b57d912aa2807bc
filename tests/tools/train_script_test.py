"""tools/train.sh: what it adds to the flags, and what it leaves alone."""

import pathlib
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.integration

_SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "train.sh"


def _flags(folder, *arguments):
    """Those that impala-train is called with, and the extra that is installed."""
    (folder / "tools").mkdir()
    shutil.copy(_SCRIPT, folder / "tools")
    install = 'cd "$(dirname "${BASH_SOURCE[0]}")/.."; echo "extra $1"\n'
    (folder / "tools" / "install.sh").write_text(install)
    binary = folder / ".venv" / "bin" / "impala-train"
    binary.parent.mkdir(parents=True)
    binary.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    binary.chmod(0o755)
    command = ["bash", folder / "tools" / "train.sh", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    extra, *flags = done.stdout.splitlines()
    return flags, extra.removeprefix("extra ")


def test_without_arguments_it_trains_catch(tmp_path):
    assert _flags(tmp_path) == (["catch"], "")


@pytest.mark.parametrize(
    "flags",
    [
        ("--config=experiments/atari.py:Pong", "--workdir=a b"),
        ("--config", "experiments/atari.py:Pong", "--workdir", "a b"),
        ("--workdir", "a b", "-config", "experiments/atari.py:Pong"),
        ("-workdir=a b", "-config=experiments/atari.py:Pong"),
        ("ALE/Pong-v5", "--config.seed=3"),
        ("atari:Pong",),
    ],
)
def test_given_flags_stay_unchanged(tmp_path, flags):
    assert _flags(tmp_path, *flags) == (list(flags), "atari")


def test_a_field_is_no_config(tmp_path):
    given = ("--config.batch_size=64", "--config.seed", "3")
    flags, _ = _flags(tmp_path, *given)
    assert flags == ["catch", *given]


@pytest.mark.parametrize("what", ["mujoco:Ant", "HalfCheetah-v5", "Swimmer-v5"])
def test_robots_need_mujoco(tmp_path, what):
    assert _flags(tmp_path, what) == ([what], "mujoco")


def test_another_version_five_needs_nothing(tmp_path):
    assert _flags(tmp_path, "my_game:Mine-v5") == (["my_game:Mine-v5"], "")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("battle", "--config.actors.temperature=0.5"), "magent2"),
        (("catch", "--workdir=runs/compete"), ""),
        (("catch", "--config.replay.reuse=2"), ""),
        (("reuse",), "minatar"),
        (("--config.environment.id=ALE/Pong-v5",), "atari"),
    ],
)
def test_the_extra_is_that_of_what_is_trained(tmp_path, arguments, extra):
    assert _flags(tmp_path, *arguments)[1] == extra


_PYTHON = """#!/bin/sh
case "$*" in
--version) cat "$0.version" ;;
"-m venv --clear .venv")
  rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python
  cp "$0.version" .venv/bin/python.version ;;
esac
"""


def test_a_chosen_python_replaces_the_environment_of_another(tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(_SCRIPT.with_name("install.sh"), tmp_path / "tools")
    for name in ("setup.py", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    pythons = tmp_path / "pythons"
    pythons.mkdir()
    for version in ("3.11.0", "3.13.0"):
        (pythons / version).write_text(_PYTHON)
        (pythons / version).chmod(0o755)
        (pythons / f"{version}.version").write_text(f"Python {version}\n")

    def install(**env):
        script = f"source {tmp_path}/tools/install.sh test"
        path = f"{pythons}:/usr/bin:/bin"
        command = ["bash", "-c", script]
        subprocess.run(command, check=True, env={"PATH": path, **env})
        made = [tmp_path / ".venv" / "bin" / "python", "--version"]
        done = subprocess.run(made, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert install(PYTHON=str(pythons / "3.11.0")) == "Python 3.11.0"
    assert install() == "Python 3.11.0"  # that of the environment
    assert install(PYTHON=str(pythons / "3.13.0")) == "Python 3.13.0"
