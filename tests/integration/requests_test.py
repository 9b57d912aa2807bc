"""Real runs that are asked to stop, for a checkpoint, or for a profile."""

import json
import os
import signal
import subprocess

import pytest

import harness
from impala_mp.monitoring import run_history
from tests.support import runs


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (signal.SIGINT, signal.SIGHUP)
        ),
    ],
)
def test_a_signal_stops_with_a_checkpoint_and_the_run_resumes_from_it(start, number):
    run = start(runs.LONG)
    run.until(lambda: len(run.records()) > 2)
    pids = [p["pid"] for p in run.processes()]
    run.process.send_signal(number)
    assert run.wait() == 0, run.text()
    assert harness.survivors(pids, 1.0) == []
    stopped = run.records()[-1]
    again = start(runs.LONG)
    again.until(lambda: again.records()[-1]["agent_steps"] > stopped["agent_steps"])
    again.process.send_signal(number)
    assert again.wait() == 0
    assert f"Resuming from update {stopped['updates']:,}" in again.text()
    records = again.records()
    assert len({record["agent_steps"] for record in records}) == len(records)
    assert harness.never_backwards(records)
    assert all(map(harness.identity_holds, records))
    assert records[-1]["health/learned"] > stopped["health/learned"]
    assert {record["health/run"] for record in records} == {0, 1}
    (resume,) = run_history.read(str(run.workdir), "agent_steps").events[
        run_history.RESUME
    ]
    assert resume >= stopped["agent_steps"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_whole_group_is_a_request_to_the_supervisor(start, number):
    """`timeout`, Slurm and a closed terminal signal all processes of the group."""
    run = start(runs.LONG, "--config.evaluation.interval_steps=2000", own_session=True)
    run.until(lambda: len(run.records()) > 2)
    run.until_running("evaluator")
    os.killpg(run.process.pid, number)
    assert run.wait() == 0, run.text()
    # No record follows the last checkpoint if one was written at the same update.
    last = run.records()[-1]
    assert str(last["updates"]) in os.listdir(run.workdir / "checkpoints")
    assert last["health/restarts"] == 0
    assert "was killed" not in run.text()


def test_late_children_are_named_and_killed(start):
    run = start(runs.LONG, "--config.shutdown.deadline_secs=1.0")
    victim = run.until_running(count=2)[1]
    os.kill(victim["pid"], signal.SIGSTOP)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert f"actor {victim['index']} (incarnation 0) did not stop" in run.text()
    assert harness.survivors([victim["pid"]], 1.0) == []


@pytest.mark.slow
def test_a_signal_and_its_echo_are_one_request_and_a_later_one_is_another(start):
    run = start(runs.LONG, "--config.shutdown.deadline_secs=50.0")
    victim = run.until_running(count=2)[1]
    os.kill(victim["pid"], signal.SIGSTOP)
    run.process.send_signal(signal.SIGTERM)
    run.until(lambda: "Stopping on request" in run.text())
    run.process.send_signal(signal.SIGTERM)  # the echo: the deadline still holds
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(1.5)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert "did not stop at the second request" in run.text()
    assert "learner (incarnation" not in run.text()


def test_a_late_learner_costs_the_last_checkpoint_and_is_reported(start):
    run = start(runs.LONG, "--config.shutdown.deadline_secs=1.0")
    run.until(lambda: len(run.records()) > 2)
    os.kill(run.until_running("learner")[0]["pid"], signal.SIGSTOP)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 1
    assert "learner (incarnation 0) did not stop within 1 s" in run.text()
    assert "The same command resumes" not in run.text()


def test_a_checkpoint_on_demand(start):
    run = start(runs.LONG)
    run.until(lambda: run.records())
    run.process.send_signal(signal.SIGUSR1)
    run.until(lambda: list((run.workdir / "checkpoints").glob("[0-9]*")))
    updates = run.records()[-1]["updates"]
    run.until(lambda: run.records()[-1]["updates"] > updates)
    assert len(list((run.workdir / "checkpoints").glob("[0-9]*"))) == 1


def test_trajectories_in_flight_are_learned_before_the_end(start):
    # A learner so slow that the rings are full whenever it is looked at.
    run = start(runs.LONG, "--config.network.hidden_sizes=(512,512,512)")
    run.until(lambda: run.records() and run.records()[-1]["health/in_flight"] > 128)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    last = run.records()[-1]
    assert harness.identity_holds(last)
    assert last["health/in_flight"] < 64


def test_a_profile_on_demand(start):
    run = start(runs.LONG, "--profile_updates=5")
    paths = [
        run.workdir / "profiles" / f"{name}.json" for name in ("learner", "actor-0")
    ]
    run.until(lambda: all(path.exists() for path in paths))
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    for path in paths:
        trace = json.loads(path.read_text())
        assert any("aten::" in event["name"] for event in trace["traceEvents"])
    assert len(os.listdir(run.workdir / "profiles")) == 2
