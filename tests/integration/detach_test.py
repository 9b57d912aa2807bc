"""impala-train --detach."""

import json
import os
import re
import signal
import subprocess
import sys
import time

from impala_mp.storage import files


def _train(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "impala_mp.cli.train", *arguments, "--detach"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _wait(condition, secs=120.0):
    end = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_training_goes_on_after_its_command_and_stops_by_its_process(tmp_path):
    done = _train(tmp_path, "catch", "--config.total_agent_steps=1e8")
    assert done.returncode == 0, done.stderr
    pid = int(re.search(r"process (\d+)", done.stdout)[1])
    (folder,) = (each for each in tmp_path.glob("runs/Catch/*") if each.is_dir())
    assert os.getsid(pid) == pid != os.getsid(0)
    health = json.loads((folder / "health.json").read_text())
    assert health["processes"][0]["pid"] == pid
    os.kill(pid, signal.SIGTERM)
    _wait(lambda: "Stopped." in (folder.parent / f"{folder.name}.log").read_text())
    _wait(lambda: not os.path.exists(f"/proc/{pid}"))
    assert files.newest_update(str(folder / "checkpoints")) >= 0


def test_bad_input_is_told_and_nothing_is_left(tmp_path):
    done = _train(tmp_path, "catch", "--config.batch_size=-3")
    assert done.returncode == 2
    assert "batch_size (-3) must be at least 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
