"""impala-train --detach."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.cli import detach
from impala_mp.monitoring import health as health_lib
from impala_mp.storage import files, workdir


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


@pytest.fixture
def killed(tmp_path):
    """Ends what a failed test would leave: trainings of the folder, by their health."""
    yield
    for path in tmp_path.glob("runs/*/*/health.json"):
        for process in json.loads(path.read_text())["processes"]:
            if process["pid"] and workdir.is_live(str(path.parent)):
                os.kill(process["pid"], signal.SIGKILL)


def test_a_training_goes_on_after_its_command_and_stops_by_its_process(
    tmp_path, killed
):
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


@pytest.fixture
def refusing(tmp_path, monkeypatch):
    """A training that prints its arguments and fails; the folder of the run."""
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho "refused: $*"\nexit 2\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return tmp_path / "made" / "run"


@pytest.mark.parametrize("flag", ["--detach", "--detach=true", "--flagfile=flags"])
def test_a_training_in_the_background_does_not_detach_again(refusing, capsys, flag):
    assert detach.train(["catch", flag], str(refusing)) == 2
    assert capsys.readouterr().err.endswith(f"catch {flag} --nodetach\n")
    assert not refusing.parent.exists()


def test_a_failed_resume_prints_its_own_output_and_keeps_the_earlier(refusing, capsys):
    refusing.parent.mkdir()
    log = refusing.parent / "run.log"
    log.write_text("the first run\n")
    assert detach.train(["catch"], str(refusing)) == 2
    assert capsys.readouterr().err.startswith("refused")
    assert log.read_text().startswith("the first run\nrefused")


def test_output_that_cannot_be_written_is_refused_and_nothing_is_left(refusing):
    name = "x" * 253  # a folder may be called so, but no file with .log behind it
    with pytest.raises(errors.BadInput, match="cannot be written .* another --workdir"):
        detach.train(["catch"], str(refusing / name))
    assert not refusing.parent.exists()


def test_the_folder_of_a_live_run_is_refused_and_its_output_stays(refusing):
    live = workdir.Workdir(str(refusing))
    live.open(config_lib.get_base_config())
    log = refusing.parent / "run.log"
    log.write_text("the live run\n")
    with pytest.raises(errors.BadInput, match="is in use by a live run"):
        detach.train(["catch"], str(refusing))
    live.close()
    assert log.read_text() == "the live run\n"


def test_the_health_of_another_run_in_the_folder_does_not_count(tmp_path):
    status = health_lib.Status("supervisor", 0, 7, 0, "running", 0, 0.0, "")
    health = {"time": 100.0, "bottleneck": "", "stall": ""}
    assert not detach._runs(str(tmp_path), 7, 99.0)
    health_lib.write(str(tmp_path), {**health, "processes": [status._asdict()]})
    assert detach._runs(str(tmp_path), 7, 99.0)
    assert not detach._runs(str(tmp_path), 7, 101.0)  # an earlier one, long ended
    assert not detach._runs(str(tmp_path), 8, 99.0)  # a live one
