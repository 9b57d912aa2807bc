"""Files in the current folder never replace modules of Python or of a package."""

import importlib.machinery
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PACKAGES = ("absl", "gymnasium", "matplotlib", "numpy", "rich", "torch")
_SCRIPT = """
import multiprocessing
from impala_mp.config import user_code
from impala_mp.runtime import fork_server


def leave():
    import mine, queue, sys
    print(mine.__name__, "torch" in sys.modules, flush=True)


if __name__ == "__main__":
    user_code.add_current_folder()
    fork_server.start()
    child = multiprocessing.get_context("forkserver").Process(target=leave)
    child.start()
    child.join()
    raise SystemExit(child.exitcode)
"""


@pytest.fixture
def trapped(tmp_path):
    """Starts Python in a folder with a file for each module; returns what it wrote."""
    folder = tmp_path / "here"
    folder.mkdir()
    names = {*sys.stdlib_module_names, *_PACKAGES}
    for name in filter(importlib.machinery.PathFinder.find_spec, names):
        text = f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r} + ' ')\n"
        (folder / f"{name}.py").write_text(f"{text}raise ImportError('{name}')\n")
    (folder / "mine.py").touch()

    def start(*arguments):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
        imported = tmp_path / "imported"
        assert not imported.exists(), imported.read_text()
        return done

    return start


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"),
    [
        (
            "train",
            [
                f"--config={_ROOT}/experiments/catch.py",
                "--config.environment.id=mine:make",
                "--config.runtime.mode=lockstep",
                "--workdir=run",
            ],
            "names no factory",
        ),
        ("evaluate", ["--workdir=nowhere"], "nowhere has no config.json"),
        ("status", ["nowhere"], "nowhere"),
        ("new", ["nowhere", "--name=mine.x"], "cannot be the name"),
    ],
)
def test_no_command_imports_from_the_current_folder(
    trapped, command, arguments, sentence
):
    # A console script is in a folder of its own; here the current one comes first.
    done = trapped(
        "-X", "frozen_modules=on", "-m", f"impala_mp.cli.{command}", *arguments
    )
    assert sentence in done.stdout + done.stderr
    assert done.returncode


def test_nor_do_the_fork_server_and_its_children(trapped, tmp_path):
    (tmp_path / "script.py").write_text(_SCRIPT)
    done = trapped(tmp_path / "script.py")
    assert done.stdout.split() == ["mine", "True"], done.stderr
