"""The way of a newcomer, in this environment."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_journey():
    env = {**os.environ, "PYTHON": sys.executable, "REUSE": "1", "STEPS": "5000"}
    env.pop("XDG_STATE_HOME", None)
    done = subprocess.run(
        ["bash", str(_ROOT / "tools" / "journey.sh")],
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a bug in step is named" in done.stdout
    assert done.stdout.endswith("ValueError: the door is locked\n")
