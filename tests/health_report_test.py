"""What `impala-status` makes of files that are half-written, or of another version."""

import json
import time

import pytest

from impala_mp import errors, health_report

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


def _write(folder, **changes):
    health = {"time": time.time(), **_HEALTH, **changes}
    (folder / "health.json").write_text(json.dumps(health))


def test_a_whole_file_is_reported(tmp_path):
    _write(tmp_path)
    report = health_report.read(str(tmp_path))
    assert report.running
    assert report.healthy


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
        health_report.read(str(tmp_path))


@pytest.mark.parametrize("data", [b"", b'{"time": 1.0, "proc', b"\xff\xfe"])
def test_half_a_file_is_a_sentence(tmp_path, data):
    (tmp_path / "health.json").write_bytes(data)
    with pytest.raises(errors.BadInput, match="half-written or damaged"):
        health_report.read(str(tmp_path))


def test_a_damaged_line_of_the_metrics_is_left_out(tmp_path):
    _write(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"agent_steps": 1\n')
    assert health_report.read(str(tmp_path)).healthy


def test_no_run_is_a_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", __file__):
        with pytest.raises(errors.BadInput, match="has no health.json"):
            health_report.read(str(path))
