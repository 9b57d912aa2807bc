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
