"""What `impala-status` makes of files that are half-written, or of another version."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import rich.console

from impala_mp import errors
from impala_mp.monitoring import status

_PROCESS = {
    "role": "supervisor",
    "index": 0,
    "pid": 7,
    "incarnation": 0,
    "state": "running",
    "restarts": 0,
    "heartbeat_age_secs": 0.0,
    "reason": "",
}
_HEALTH = {"bottleneck": "", "stall": "", "processes": [_PROCESS]}


def _write(folder, age_secs=0.0, touched_secs=0.0, **changes):
    now = time.time()
    path = folder / "health.json"
    path.write_text(json.dumps({"time": now - age_secs, **_HEALTH, **changes}))
    os.utime(path, (now - touched_secs, now - touched_secs))


@pytest.fixture
def live(tmp_path):
    """The folder of a live run."""
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path


def _text(report):
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(report.table)
    return console.file.getvalue()


def test_a_whole_file_is_reported(live):
    _write(live)
    report = status.read(str(live))
    assert report.running
    assert report.healthy


def _processes(state, other="running"):
    learner = {**_PROCESS, "role": "learner", "state": other}
    return [{**_PROCESS, "state": state}, learner]


def test_a_run_with_its_lock_is_alive_however_old_the_file(live):
    _write(live, age_secs=3600.0)  # touched: a full disk
    report = status.read(str(live))
    assert (report.running, report.healthy) == (True, True)
    assert "3600 s old: is the disk full?" in _text(report)
    _write(live, age_secs=3600.0, touched_secs=60.0)
    report = status.read(str(live))
    assert (report.running, report.healthy) == (True, False)
    assert "is alive but silent for 60 s" in _text(report)


def test_a_run_without_its_lock_is_gone_however_new_the_file(tmp_path):
    _write(tmp_path)
    report = status.read(str(tmp_path))
    assert (report.running, report.healthy) == (False, False)
    assert "was killed" in _text(report)


@pytest.mark.parametrize(
    ("changes", "healthy"),
    [
        ({"stall": "No update for 3600 s."}, False),
        ({"processes": _processes("running", "hung")}, False),
        ({"processes": _processes("running", "lost")}, False),
        ({"processes": _processes("running", "slow")}, True),
        ({"processes": _processes("stopped", "ended")}, True),
        ({"processes": _processes("finished", "ended")}, True),
        ({"processes": _processes("failed", "lost")}, False),
    ],
)
def test_healthy_and_unhealthy_runs(live, changes, healthy):
    _write(live, **changes)
    report = status.read(str(live))
    assert report.healthy == healthy
    assert "was killed" not in _text(report)


@pytest.mark.integration
def test_ctrl_c_ends_the_watch_with_the_verdict(live):
    for stall, code in (("", 0), ("No update for 99 s.", 1)):
        _write(live, stall=stall)
        watch = subprocess.Popen(
            [sys.executable, "-m", "impala_mp.cli.status", str(live), "--watch"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout.readline()
        time.sleep(0.3)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30.0) == code
        assert "Traceback" not in watch.communicate()[1]


def _without(name):
    return [{key: value for key, value in _PROCESS.items() if key != name}]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        json.dumps({**_HEALTH}),
        json.dumps({**_HEALTH, "time": 1.0, "processes": []}),
        json.dumps({**_HEALTH, "time": 1.0, "processes": [7]}),
        *(
            json.dumps({**_HEALTH, "time": 1.0, "processes": _without(name)})
            for name in _PROCESS
        ),
    ],
)
def test_another_version_is_a_sentence(tmp_path, text):
    (tmp_path / "health.json").write_text(text)
    with pytest.raises(errors.BadInput, match="another version"):
        status.read(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"time": "now"},
        {"time": 10**400},
        {"stall": 7},
        {"live": ["epsilon", 7]},
        {"processes": 7},
        {"processes": [{**_PROCESS, "heartbeat_age_secs": "0"}]},
        {"processes": [{**_PROCESS, "reason": 7}]},
        {"processes": [{**_PROCESS, "state": []}]},
        {"processes": [{**_PROCESS, "pid": None}]},
    ],
)
def test_values_of_another_type_are_a_sentence(tmp_path, changes):
    text = json.dumps({"time": 1.0, **_HEALTH, **changes})
    (tmp_path / "health.json").write_text(text)
    with pytest.raises(errors.BadInput, match="was edited"):
        status.read(str(tmp_path))


def test_text_of_the_file_is_shown_as_text(live):
    process = {**_PROCESS, "reason": "[/x] [red]\x1b[31m", "restarts": 1}
    _write(live, processes=[process], live=["[/y]"], bottleneck="[/z]")
    text = _text(status.read(str(live)))
    for shown in ("[/x] [red]\\x1b[31m", "[/y]", "[/z]"):
        assert shown in text


@pytest.mark.parametrize(
    "data", [b"", b'{"time": 1.0, "proc', b"\xff\xfe", b"[" * 10**5]
)
def test_half_a_file_is_a_sentence(tmp_path, data):
    (tmp_path / "health.json").write_bytes(data)
    with pytest.raises(errors.BadInput, match="half-written or damaged"):
        status.read(str(tmp_path))


def test_a_damaged_line_of_the_metrics_is_left_out(tmp_path):
    _write(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"agent_steps": 1\n')
    assert not status.read(str(tmp_path)).running


def test_no_run_is_a_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", __file__):
        with pytest.raises(errors.BadInput, match="has no health.json"):
            status.read(str(path))
