"""Real runs that lose their disk, their environment, or every update."""

import contextlib
import os
import re
import signal
import time

import pytest

import harness
from impala_mp.storage import checkpoint
from tests.support import runs

_LONG, _fork_server = runs.LONG, runs.fork_server


def _newest_checkpoint(run):
    return max((r["health/checkpoint_update"] for r in run.records()), default=-1)


def _updates_since_checkpoint(run):
    last = run.records()[-1]
    return last["updates"] - last["health/checkpoint_update"]


@pytest.mark.mount
def test_a_run_survives_a_full_disk_and_reports_it(start, mount, tmp_path):
    small_disk = mount(tmp_path / "run" / "checkpoints", "size=4m")
    run = start(_LONG, "--config.checkpoint.interval_secs=0.2")
    run.until(lambda: list(small_disk.glob("[0-9]*")))
    runs.fill(small_disk)
    run.until(lambda: "checkpoints could not be written" in run.text())
    run.until(run.records)  # the first record comes after a second
    updates = run.records()[-1]["updates"]
    run.until(lambda: run.records()[-1]["updates"] > updates + 50)
    assert all(p["restarts"] == 0 for p in run.processes())
    (small_disk / "filler").unlink()
    run.until(lambda: run.records()[-1]["health/checkpoint_update"] > updates)
    # One that is being written may still succeed, and then makes room for the next by
    # removing older ones. After so many updates without one, every attempt fails.
    run.until(lambda: runs.fill(small_disk) or _updates_since_checkpoint(run) > 100)
    run.process.send_signal(signal.SIGTERM)
    # A checkpoint that was half-written frees its room when it fails.
    run.until(lambda: runs.fill(small_disk) or run.process.poll() is not None)
    assert run.wait() == 1  # what was learned last is lost, and not silently
    assert "the last checkpoint could not be written" in run.text()


@pytest.mark.mount
def test_a_run_that_ends_on_a_full_disk_restarts_nothing(start, mount, tmp_path):
    small_disk = mount(tmp_path / "run" / "checkpoints", "size=4m")
    run = start("--config.checkpoint.interval_secs=1000")
    run.until(lambda: list(small_disk.glob("[0-9]*")) or run.records())
    runs.fill(small_disk)
    assert run.wait() == 1
    assert "the last checkpoint could not be written" in run.text()
    assert "restart in" not in run.text()
    assert "Traceback" not in run.text()


@pytest.mark.slow
@pytest.mark.mount
def test_a_run_survives_a_disk_without_room_for_its_logs(start, mount, tmp_path):
    small_disk = mount(tmp_path / "run", "size=6m")
    run = start(_LONG, "--config.checkpoint.interval_secs=0.2")
    run.until(lambda: _newest_checkpoint(run) > 0)
    actor, learner = run.until_running(count=2)[1], run.until_running("learner")[0]
    updates = run.records()[-1]["updates"]
    runs.fill(small_disk)
    run.until(lambda: "No space left on device" in run.text())
    for victim in (actor, learner):
        os.kill(victim["pid"], signal.SIGKILL)
    run.until(lambda: run.text().count("restart in") == 2)
    end = time.monotonic() + 2.0  # those that write a line would die of it
    run.until(lambda: runs.fill(small_disk) or time.monotonic() > end)
    (small_disk / "filler").unlink()
    run.until(lambda: _newest_checkpoint(run) > updates)
    expected = {
        ("supervisor", 0): 0,
        ("learner", 0): 1,
        ("actor", 0): 0,
        ("actor", 1): 1,
    }

    def restarts():
        return {(p["role"], p["index"]): p["restarts"] for p in run.processes()}

    # The checkpoint may be there before the next health.json.
    run.until(lambda: restarts() == expected)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert all(map(harness.identity_holds, run.records()))


@pytest.mark.slow
@pytest.mark.mount
def test_a_start_without_room_is_tried_again(start, mount, tmp_path):
    temporary = mount(tmp_path / "tmp", "nr_inodes=9")
    run = start(
        _LONG,
        "--config.health.max_failed_starts=100",
        "--config.health.max_backoff_secs=0.5",
        env={"TMPDIR": str(temporary)},
    )
    run.until_running(count=2)
    with contextlib.suppress(OSError):  # no more inodes
        for number in range(9):
            (temporary / str(number)).touch()
    os.kill(_fork_server(run), signal.SIGKILL)
    run.until(lambda: run.text().count("could not be started") > 4)
    for path in temporary.iterdir():
        path.unlink()
    run.until_running(count=2)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert list(temporary.iterdir()) == []


def test_a_start_that_fails_for_good_ends_the_run_with_its_cause(start, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    few = [f"--config.health.max_restarts.{role}=2" for role in ("actor", "learner")]
    run = start(_LONG, *few, env={"TMPDIR": str(temporary)})
    run.until_running(count=2)
    temporary.rmdir()
    os.kill(_fork_server(run), signal.SIGKILL)
    assert run.wait() == 1
    assert "could not be started" in run.text()
    assert "died 3 times within" in run.text()
    assert "Traceback" not in run.text()


def test_a_checkpoint_signal_to_the_whole_group_kills_no_process(start):
    """From the first second on."""
    run = start(_LONG, own_session=True)
    while len(run.records()) < 3:
        assert run.process.poll() is None, run.text()
        time.sleep(0.05)
        if run.output.stat().st_size or time.monotonic() - run.born > 0.3:
            os.killpg(run.process.pid, signal.SIGUSR1)
    assert list((run.workdir / "checkpoints").glob("[0-9]*"))
    assert {p["restarts"] for p in run.processes()} == {0}
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert "restart in" not in run.text()


@pytest.mark.slow
def test_a_run_with_few_records_is_watched_all_the_same(start):
    run = start(
        _LONG,
        "--config.logging.interval_secs=1000",
        "--config.total_agent_steps=1000000000000",
    )
    path = run.workdir / "health.json"
    run.until_running(count=2)
    times = {path.stat().st_mtime}
    run.until(lambda: times.add(path.stat().st_mtime) or len(times) == 2)
    assert runs.status(run).returncode == 0
    assert len(run.records()) <= 1  # the first comes at once


_LEAVING = """
import os
import sys
import gymnasium
from impala_mp.environments import catch


class Leaving(catch.CatchVectorEnv):
    def step(self, actions):
        path = f"{os.environ['DOOM']}.{os.getpid()}"
        if os.path.exists(path):
            EXIT
        return super().step(actions)


gymnasium.register("Leaving-v0", vector_entry_point=Leaving)
"""


_REFUSING = """
import multiprocessing
from impala_mp import errors
from impala_mp.environments import catch


def make(num_envs):
    if multiprocessing.parent_process() is not None:
        raise errors.BadInput("no licence for another process.")
    return catch.CatchVectorEnv(num_envs)
"""


def test_input_that_only_a_child_refuses_leaves_nothing(start, tmp_path):
    (tmp_path / "refusing.py").write_text(_REFUSING)
    run = start(
        _LONG,
        "--config.environment.id=refusing:make",
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert run.wait() == 2
    assert "no licence for another process." in run.text()
    assert "Traceback" not in run.text()
    assert not run.workdir.exists()


@pytest.mark.parametrize(
    "call",
    [
        "sys.exit(2)",
        pytest.param("sys.exit(0)", marks=pytest.mark.slow),
        pytest.param("os._exit(2)", marks=pytest.mark.slow),
    ],
)
def test_an_environment_that_exits_ends_its_actor_only(start, tmp_path, call):
    (tmp_path / "leaving.py").write_text(_LEAVING.replace("EXIT", call))
    run = start(
        _LONG,
        "--config.environment.id=leaving:Leaving-v0",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "DOOM": str(tmp_path / "doom"),
        },
    )
    victim = run.until_running(count=2)[0]
    (tmp_path / f"doom.{victim['pid']}").touch()
    number = re.search(r"\d", call)[0]
    place = f"leaving.py:12 in step: SystemExit: {number}"
    told = f"{place} (actor {victim['index']}, step"
    if call.startswith("os"):
        told = "ended with exit code 2 after"
    run.until(lambda: told in run.text())
    run.until(lambda: any(p["incarnation"] for p in run.until_running()))
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()


_SICK = """
import torch
from torch import nn


class Sick(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.ReLU())
        self.updates = 0

    def forward(self, observation):
        if torch.is_grad_enabled():
            self.updates += 1
        features = self.layers(observation.float())
        return features * float("nan") if self.updates > 50 else features


def factory(observation_spec, config):
    return Sick(50)
"""


def test_after_too_many_skipped_updates_the_run_stops_and_reports_it(start, tmp_path):
    (tmp_path / "sick.py").write_text(_SICK)
    run = start(
        _LONG,
        "--config.network.torso=sick:factory",
        "--config.health.max_skipped_updates=7",
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert run.wait() == 1
    last = run.text().strip().splitlines()[-1]
    assert "7 updates in a row" in last
    assert "update 57 is not finite" in last
    assert f"impala-diagnose {run.workdir}/crashes/55.pt" in last
    assert "restart in" not in run.text()
    assert "Traceback" not in run.text()
    assert [p.name for p in (run.workdir / "checkpoints").iterdir()] == ["57"]


def test_counters_survive_a_killed_supervisor(start):
    flags = (_LONG, "--config.checkpoint.interval_secs=0.3")
    run = start(*flags)
    os.kill(run.until_running(count=2)[0]["pid"], signal.SIGKILL)
    run.until(lambda: run.records() and run.records()[-1]["health/restarts"] == 1)
    counted = run.records()[-1]["updates"]
    # What a checkpoint goes on from is the record before it.
    run.until(lambda: _newest_checkpoint(run) > counted)
    run.process.kill()
    run.process.wait()
    before = run.records()
    kept = checkpoint.load_newest(str(run.workdir / "checkpoints"), print)["counts"]
    again = start(*flags)
    newest = before[-1]["updates"]
    again.until(lambda: any(m["updates"] > newest for m in again.records()))
    again.process.send_signal(signal.SIGTERM)
    assert again.wait() == 0, again.text()
    records = again.records()
    assert harness.never_backwards(records)
    assert all(map(harness.identity_holds, records))
    assert records[-1]["health/restarts"] == 1
    # What was in flight for the checkpoint that the run goes on from.
    assert records[-1]["health/discarded"] == kept["discarded"] + kept["in_flight"]


_SLOW = """
import os
import pathlib
import time
import gymnasium
from impala_mp.environments import catch


class Slow(catch.CatchVectorEnv):
    def step(self, actions):
        if self.num_envs == 7:  # of the final evaluation
            pathlib.Path(os.environ["EVALUATING"]).touch()
            time.sleep(0.5)
        return super().step(actions)


gymnasium.register("Slow-v0", vector_entry_point=Slow)
"""


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT]
)
def test_a_signal_during_the_final_evaluation_ends_it_well(start, tmp_path, number):
    (tmp_path / "slow.py").write_text(_SLOW)
    evaluating = tmp_path / "evaluating"
    run = start(
        "--config.total_agent_steps=20000",
        "--config.environment.id=slow:Slow-v0",
        "--config.evaluation.environments=7",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "EVALUATING": str(evaluating),
        },
        own_session=True,
    )
    run.until(evaluating.exists)
    os.killpg(run.process.pid, number)
    for _ in range(20):  # echoes, until the process is no more
        time.sleep(0.02)
        if run.process.poll() is None:
            run.process.send_signal(number)
    assert run.wait() == 0, run.text()
    last = run.text().splitlines()[-1]
    assert "Stopped early on request. The run is saved." in last
    assert "Traceback" not in run.text()
    assert list((run.workdir / "checkpoints").glob("[0-9]*"))
