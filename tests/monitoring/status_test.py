"""`impala-status` on runs in every state."""

import contextlib
import fcntl
import io
import json
import os
import time

import pytest
import rich.console

from impala_mp import config as config_lib
from impala_mp.monitoring import overview, status
from impala_mp.storage import evaluations

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
_RECORD = {
    "agent_steps": 1000,
    "updates": 50,
    "time_secs": 100.0,
    "episode/return_mean": 1.5,
    "episode/return_min": -1.0,
    "episode/return_max": 2.0,
    "evaluation/return_mean": 1.75,
    "evaluation/return_low": 1.5,
    "evaluation/return_high": 2.0,
    "env/success_rate": 0.5,
}


def _make(folder, state="running", records=(1, 2), config=True, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    learner = {**_PROCESS, "role": "learner", "state": "waiting_for_data"}
    processes = [{**_PROCESS, "state": state}, {**learner, **changes}]
    found = {"bottleneck": "", "stall": "", "processes": processes}
    (folder / "health.json").write_text(json.dumps({"time": time.time(), **found}))
    if config:
        made = config_lib.get_base_config()
        made.total_agent_steps = 4000
        (folder / "config.json").write_text(config_lib.to_json(made))
    lines = [json.dumps({k: v * i for k, v in _RECORD.items()}) for i in records]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "checkpoints" / "100").mkdir(parents=True, exist_ok=True)
    return str(folder)


@pytest.fixture
def live():
    """Makes a folder look like that of a live run."""
    with contextlib.ExitStack() as locks:

        def hold(path):
            lock = locks.enter_context(open(os.path.join(path, "lock"), "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)

        yield hold


def _text(report):
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(report.table)
    return console.file.getvalue()


def test_a_live_run(tmp_path, live):
    path = _make(tmp_path / "run")
    live(path)
    report = status.read(path)
    text = _text(report)
    for expected in (
        "running",
        "50.0 %  2,000 of 4,000 steps  3:20 left  3:20 elapsed",
        "3.00  (-2.00 … 4.00)  ▁",
        "3.50 ±.5 at 2k steps",
        "update 100, 0 s ago",
        "10 agent steps/s, 0.5 updates/s",
        "success",
    ):
        assert expected in text, expected
    assert "learner 0" not in text
    assert "learner 0" in _text(status.read(path, processes=True))
    assert (report.running, report.healthy) == (True, True)
    assert _text(status.read(path, ascii_only=True)).isascii()


@pytest.mark.parametrize(
    ("state", "shown", "healthy"),
    [
        ("running", "killed", False),
        ("finished", "finished", True),
        ("stopped", "stopped", True),
        ("failed", "failed", False),
    ],
)
def test_an_ended_run(tmp_path, state, shown, healthy):
    path = _make(tmp_path / "run", state)
    report = status.read(path)
    assert (report.running, report.healthy) == (False, healthy)
    text = _text(report)
    assert text.startswith(shown)
    for word in ("left", " alive", " of 2 ", "learner 0"):
        assert word not in text


def test_sick_processes_are_listed(tmp_path, live):
    path = _make(tmp_path / "run", state="running")
    live(path)
    _make(tmp_path / "run", reason="was killed by SIGKILL", restarts=3)
    text = _text(status.read(path))
    assert "last error  learner 0 was killed by SIGKILL" in text
    assert "heartbeat" not in text
    health = json.loads((tmp_path / "run" / "health.json").read_text())
    health["processes"][1]["state"] = "hung"
    (tmp_path / "run" / "health.json").write_text(json.dumps(health))
    report = status.read(path)
    assert "heartbeat" in _text(report)
    assert _text(report).startswith("sick")
    assert not report.healthy


def test_the_newest_evaluations_are_shown_with_the_random_policy(tmp_path):
    path = _make(tmp_path / "run", "finished")
    assert "3.50 ±.5 at 2k steps" in _text(status.read(path))
    line = {"purpose": "final", "updates": 9, "time_secs": 9.0, "episodes": 64}
    for policy, steps, mean in (
        ("random", 0, -7.5),
        ("greedy", 1000, 5.0),
        ("sampled", 2000, 8.25),
        ("greedy", 2000, 9.25),
    ):
        found = {"policy": policy, "agent_steps": steps, "mean": mean}
        found |= {"low": mean - 0.25, "high": mean + 0.25}
        evaluations.append(path, {**line, **found})
    lines = " ".join(_text(status.read(path)).split())
    assert "evaluation 9.25 ±.25 at 2k steps over 64 games (greedy)" in lines
    assert "evaluation 8.25 ±.25 at 2k steps over 64 games (sampled)" in lines
    assert "random policy -7.50" in lines
    assert "5.00" not in lines
    assert status.load(path).evaluation()["mean"] == 9.25


def test_the_final_evaluation_is_shown_not_the_one_that_chose_a_checkpoint(tmp_path):
    path = _make(tmp_path / "run", "finished")
    line = {"updates": 9, "time_secs": 9.0, "agent_steps": 2000}
    for purpose, policy, games, mean in (
        ("final", "sampled", 100, 8.25),
        ("final", "greedy", 100, 9.25),
        ("progress", "greedy", 20, 5.0),
        ("progress", "random", 20, -7.5),
    ):
        found = {"purpose": purpose, "policy": policy, "episodes": games}
        found |= {"mean": mean, "low": mean - 0.25, "high": mean + 0.25}
        evaluations.append(path, {**line, **found})
    lines = " ".join(_text(status.read(path)).split())
    assert "evaluation 9.25 ±.25 at 2k steps over 100 games (greedy)" in lines
    assert "evaluation 8.25 ±.25 at 2k steps over 100 games (sampled)" in lines
    assert "5.00" not in lines
    assert status.load(path).evaluation()["mean"] == 9.25


def test_a_run_without_records_or_config(tmp_path):
    path = _make(tmp_path / "run", "failed", records=(), config=False)
    assert "no update yet" in _text(status.read(path))
    path = _make(tmp_path / "run", "stopped", config=False)
    assert "2,000 steps" in _text(status.read(path))


def test_a_folder_of_runs_is_a_table(tmp_path, live):
    runs = tmp_path / "runs"
    _make(runs / "a" / "1", "finished")
    live(_make(runs / "b"))
    _make(runs / "too" / "deep" / "c", "stopped")
    _make(runs / "too" / "deep" / "for" / "it")
    (runs / "link").symlink_to(runs / "a")
    assert overview.is_folder_of_runs(str(runs))
    assert not overview.is_folder_of_runs(str(runs / "b"))
    assert not overview.is_folder_of_runs(str(tmp_path / "nowhere"))
    report = overview.read(str(runs))
    head, *lines = _text(report).splitlines()
    assert head.split() == [
        *("run", "state", "progress", "return", "evaluation", "steps/s", "age")
    ]
    assert [line.split()[:3] for line in lines] == [
        ["a/1", "finished", "50.0"],
        ["b", "running", "50.0"],
        ["too/deep/c", "stopped", "50.0"],
    ]
    assert lines[0].split()[2:] == ["50.0", "%", "of", "4k", "3.00", "3.50", "10"] + [
        *("0", "s")
    ]
    assert (report.running, report.healthy) == (True, True)


def test_one_bad_run_makes_the_table_unhealthy(tmp_path):
    runs = tmp_path / "runs"
    _make(runs / "a", "finished")
    assert overview.read(str(runs)).healthy
    _make(runs / "b", "running")
    assert not overview.read(str(runs)).healthy
    _make(runs / "b", "stopped")
    (runs / "a\x1b[31m").mkdir()
    (runs / "a\x1b[31m" / "health.json").write_text("{")
    report = overview.read(str(runs))
    text = _text(report)
    assert not report.healthy
    assert "unreadable" in text
    assert "\x1b" not in text
