"""Real runs looked at from a second terminal."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support import runs


def test_a_workdir_in_use_is_refused(start):
    run = start(runs.LONG)
    run.until_running()
    second = start(runs.LONG)
    assert second.wait() == 2
    assert "in use by a live run" in second.text()
    assert "Traceback" not in second.text()


@pytest.mark.slow
def test_status_from_a_second_terminal(start, tmp_path):
    run = start(runs.LONG)
    run.until(lambda: run.records())
    run.until_running(count=2)
    done = runs.status(run, "--processes")
    assert done.returncode == 0, done.stdout
    assert "learner 0" not in runs.status(run).stdout
    for word in ("learner 0", "actor 1", str(run.process.pid), "agent steps/s"):
        assert word in done.stdout
    victim = run.until_running(count=2)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    run.until(lambda: "SIGKILL" in runs.status(run).stdout)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    assert runs.status(run).returncode == 0
    assert "stopped" in runs.status(run).stdout
    other = subprocess.run(
        [sys.executable, "-m", "impala_mp.cli.status", str(tmp_path / "no")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert other.returncode == 2
    assert "Traceback" not in other.stderr


def test_a_killed_supervisor_is_noticed_by_status(start):
    run = start(runs.LONG)
    run.until(lambda: run.records())
    run.process.kill()
    run.process.wait()
    path = run.workdir / "health.json"
    health = json.loads(path.read_text())
    path.write_text(json.dumps({**health, "time": health["time"] - 60.0}))
    done = runs.status(run)
    assert done.returncode == 1
    assert "The supervisor was killed." in done.stdout
