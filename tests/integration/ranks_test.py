"""Real runs with two learner ranks: killed, frozen, stuck, unlike, and resumed."""

import os
import random
import signal
import time

import pytest

import harness
from impala_mp.storage import checkpoint
from tests.support import runs

_TWO = (
    runs.LONG,
    "--config.learner.ranks=2",
    "--config.actors.count=2",
    "--config.actors.environments=16",
    "--config.batch_size=32",
    "--config.evaluation.during_training=False",
    "--config.checkpoint.interval_secs=1000",
    "--config.health.max_restarts.learner=1000",
    "--config.health.max_backoff_secs=0.1",
)

# Its parameters change where a file names its process.
_UNLIKE = """
import os
import pathlib
import torch
from torch import nn


class Unlike(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.ReLU())

    def forward(self, observation):
        path = pathlib.Path(os.environ["UNLIKE"])
        if path.exists() and path.read_text() == str(os.getpid()):
            self.layers[1].bias.data += 1.0
        return self.layers(observation.float())


def factory(observation_spec, config):
    return Unlike(50)
"""


def _newest(run):
    return run.records()[-1]["updates"]


def _ranks(run):
    return run.until_running("learner", 2)


def _wait_for_updates(run, count=20):
    run.until(run.records)
    before = _newest(run)
    run.until(lambda: _newest(run) > before + count)


def _restarts(run):
    return [each["restarts"] for each in run.processes("learner")]


def _kill_and_wait(run, rank, number=signal.SIGKILL, secs=30.0):
    """Returns the seconds until an update after the restart."""
    incarnation = _restarts(run)[0]
    pid = _ranks(run)[rank]["pid"]
    os.kill(pid, number)
    start = time.monotonic()
    run.until(lambda: _restarts(run) == [incarnation + 1] * 2, secs)
    return time.monotonic() - start


def test_a_killed_rank_ends_the_others_and_all_resume_together(start):
    run = start(*_TWO)
    _wait_for_updates(run)
    for rank in (1, 0):
        others = [each["pid"] for each in _ranks(run)]
        before = _newest(run)
        _kill_and_wait(run, rank)
        assert harness.survivors(others, 5.0) == []
        run.until(lambda before=before: _newest(run) > before + 5)
    records = runs.stop_and_count(run)
    assert records[-1]["health/rank_mismatches"] == 0
    assert "learner 1 (incarnation 0) was killed by SIGKILL" in run.text()


@pytest.mark.slow
def test_ranks_killed_at_random_instants_lose_nothing(start):
    run = start(*_TWO)
    _wait_for_updates(run)
    rng, secs = random.Random(0), []
    for number in range(100):
        time.sleep(rng.uniform(0.0, 0.5))
        before = _newest(run)
        start_of_kill = time.monotonic()
        _kill_and_wait(run, number % 2)
        run.until(lambda before=before: _newest(run) > before)
        secs.append(time.monotonic() - start_of_kill)
    records = runs.stop_and_count(run)
    assert records[-1]["health/rank_mismatches"] == 0
    print(f"seconds until updates are made: median {sorted(secs)[50]:.2f}")


@pytest.mark.slow
def test_a_frozen_rank_is_found_although_the_others_wait_for_it(start):
    run = start(*_TWO, "--config.health.hang_secs=2")
    _wait_for_updates(run)
    secs = _kill_and_wait(run, 1, signal.SIGSTOP)
    assert 1.5 < secs < 15.0
    _wait_for_updates(run)
    runs.stop_and_count(run)


@pytest.mark.slow
def test_ranks_that_are_all_frozen_are_found(start):
    run = start(*_TWO, "--config.health.hang_secs=2")
    _wait_for_updates(run)
    for each in _ranks(run):
        os.kill(each["pid"], signal.SIGSTOP)
    run.until(lambda: _restarts(run) == [1, 1])
    _wait_for_updates(run)
    runs.stop_and_count(run)


@pytest.mark.slow
def test_a_rank_with_other_parameters_is_found_and_all_begin_with_the_same(
    start, tmp_path
):
    (tmp_path / "unlike.py").write_text(_UNLIKE)
    path = tmp_path / "process"
    run = start(
        *_TWO,
        "--config.network.torso=unlike:factory",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "UNLIKE": str(path),
        },
    )
    _wait_for_updates(run)
    path.write_text(str(_ranks(run)[1]["pid"]))
    run.until(lambda: _restarts(run) == [1, 1])
    _wait_for_updates(run)
    assert "rank 1 of the learner has other parameters than rank 0" in run.text()
    assert runs.stop_and_count(run)[-1]["health/rank_mismatches"] == 1


@pytest.mark.slow
def test_an_inference_server_acts_for_all_ranks(start):
    run = start(*_TWO, "--config.inference.mode=server")
    _wait_for_updates(run)
    _kill_and_wait(run, 1)
    _wait_for_updates(run)
    (server,) = run.until_running("inference")
    os.kill(server["pid"], signal.SIGKILL)
    run.until(lambda: run.processes("inference")[0]["restarts"] == 1)
    _wait_for_updates(run)
    last = runs.stop_and_count(run)[-1]
    assert last["health/rank_mismatches"] == last["health/drift_alarms"] == 0
    assert last["health/mixed_unrolls"] == 0


def _run_with(start, num_ranks):
    run = start(*_TWO, f"--config.learner.ranks={num_ranks}")
    run.until(lambda: run.processes() and run.processes()[0]["pid"] == run.process.pid)
    before = _newest(run) if run.records() else 0
    run.until(lambda: run.records() and _newest(run) > before + 20)
    return run


@pytest.mark.slow
def test_the_number_of_ranks_may_change_when_a_run_resumes(start):
    for num_ranks in (2, 1, 2):
        run = _run_with(start, num_ranks)
        records = runs.stop_and_count(run)
        saved = checkpoint.load_newest(str(run.workdir / "checkpoints"), print)
        assert saved["learner"]["updates"] == records[-1]["updates"]


pytestmark = pytest.mark.integration
