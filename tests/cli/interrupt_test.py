"""Ctrl-C in the commands that do not train: code 130, and nothing is printed."""

import signal
import subprocess
import sys
import time

import pytest

from tests.support import lockstep_runs

pytestmark = pytest.mark.integration

# Stops at the import of a module until the signal comes.
_STOP = """
import os, sys, time


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["STOP_AT"] and not os.path.exists(os.environ["MARK"]):
            open(os.environ["MARK"], "w").close()
            end = time.monotonic() + 60.0
            while time.monotonic() < end:
                time.sleep(0.01)


sys.meta_path.insert(0, Finder())
"""

# An environment whose first step in an evaluation does not return.
_ENDLESS = """
import os, time
from impala_mp.environments import catch


class Endless(catch.CatchVectorEnv):
    def step(self, actions):
        if "MARK" in os.environ:
            open(os.environ["MARK"], "w").close()
            time.sleep(60.0)
        return super().step(actions)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run of an environment that can be made endless."""
    root = tmp_path_factory.mktemp("interrupt")
    (root / "endless.py").write_text(_ENDLESS)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(root)
        patched.setenv("XDG_STATE_HOME", str(root / "state"))
        overrides = {"environment.id": "endless:Endless", "total_agent_steps": 56}
        lockstep_runs.train(root / "run", **overrides)
    return root / "run"


def _interrupted(command, run, tmp_path, env):
    """Code and output of a command that gets SIGINT once it has made the mark."""
    mark = tmp_path / "mark"
    (tmp_path / "sitecustomize.py").write_text(_STOP)
    name, *arguments = command
    process = subprocess.Popen(
        [sys.executable, "-m", f"impala_mp.cli.{name}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            "PATH": "",
            "OMP_NUM_THREADS": "1",
            "XDG_STATE_HOME": str(run.parent / "state"),
            "PYTHONPATH": ":".join([str(tmp_path), *sys.path, str(run.parent)]),
            "STOP_AT": "",
            "MARK": str(mark),
            **env,
        },
    )
    deadline = time.monotonic() + 60.0
    while not mark.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    return process.returncode, text


@pytest.mark.parametrize("stop_at", ["absl", "numpy"])
@pytest.mark.parametrize(
    "command",
    ["evaluate --workdir=RUN", "status RUN", "export RUN --output=RUN.pt2", "play RUN"],
)
def test_during_the_imports(run, tmp_path, command, stop_at):
    arguments = command.replace("RUN", str(run)).split()
    done = _interrupted(arguments, run, tmp_path, {"STOP_AT": stop_at})
    assert done == (130, "")


@pytest.mark.parametrize("command", ["evaluate --workdir=RUN", "play RUN --episodes=1"])
def test_during_the_work(run, tmp_path, command):
    arguments = command.replace("RUN", str(run)).split()
    code, text = _interrupted(arguments, run, tmp_path, {})
    assert "Traceback" not in text
    assert code == (0 if command.startswith("play") else 130), text
