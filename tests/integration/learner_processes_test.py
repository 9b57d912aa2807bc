"""Two policies that two processes learn: killed one at a time, finished, resumed."""

import os
import signal

import pytest

import harness
from impala_mp import errors
from impala_mp.runtime import program
from impala_mp.storage import checkpoint, workdir
from tests.support import policy_parts, two_policies

pytestmark = pytest.mark.integration

_POLICIES = ("player_0", "player_1")


def _start(start, total, processes=2):
    return start(
        f"--config.total_agent_steps={total}",
        f"--config.learner.processes={processes}",
        "--config.evaluation.during_training=False",
        "--config.health.max_backoff_secs=0.1",
        config=f"{two_policies.__file__}:processes",
    )


def _updates(run, number):
    return run.records()[-1][f"updates/{_POLICIES[number]}"]


def _seat(run, number):
    """Also one without a process, which is to be restarted."""
    learners = (p for p in harness.processes(run.workdir) if p["role"] == "learner")
    (found,) = (p for p in learners if p["index"] == number)
    return found


def _kill(run, number):
    """Kills one learner; returns once both have learned more."""
    run.until_running("learner", 2)
    victim, other = _seat(run, number), _seat(run, 1 - number)
    os.kill(victim["pid"], signal.SIGKILL)
    assert harness.survivors([victim["pid"]], 10.0) == []
    run.until(lambda: _seat(run, number)["incarnation"] > victim["incarnation"])
    run.until_running("learner", 2)
    before = [_updates(run, k) for k in range(2)]
    run.until(lambda: all(_updates(run, k) > before[k] + 5 for k in range(2)))
    assert _seat(run, 1 - number)["pid"] == other["pid"]
    assert harness.never_backwards(run.records())


def _check_counts(records):
    assert {*harness.policies(records[-1])} == {*_POLICIES}
    assert all(map(harness.identity_holds, records))
    assert harness.never_backwards(records)
    assert records[-1]["health/mixed_unrolls"] == 0
    assert records[-1]["health/drift"] < 1e-3


def _saved(run, number):
    folder = workdir.Workdir(str(run.workdir)).checkpoints_of(_POLICIES[number])
    return checkpoint.load_newest(folder, print)


@pytest.mark.slow
def test_one_of_two_learners_is_killed_and_the_run_resumes_from_both(start):
    """Then one process learns both policies, and then again two."""
    run = _start(start, 10_000_000)
    run.until(lambda: min(_updates(run, k) for k in range(2)) > 10)
    for number in (1, 0, 1):
        _kill(run, number)
    run.stop()
    assert run.process.returncode == 0, run.text()
    _check_counts(run.records())
    for processes in (1, 2):
        last = run.records()[-1]
        for number in range(2):
            assert _saved(run, number)["learner"]["updates"] >= _updates(run, number)
        run = _start(start, 10_000_000, processes)
        _until_steps(run, last["agent_steps"] + 500)
        assert len(run.processes("learner")) == processes
        run.stop()
        assert run.process.returncode == 0, run.text()
        _check_counts(run.records())


def _until_steps(run, steps):
    run.until(lambda: run.records()[-1]["agent_steps"] > steps)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_both_finish_although_one_is_killed(start, number):
    """Each learns its share, and nothing that it has finished is learned again."""
    total = 8_000
    run = _start(start, total)
    run.until(lambda: _updates(run, number) > 5)
    _kill(run, number)
    assert run.wait() == 0, run.text()
    _check_counts(run.records())
    for each in range(2):
        steps = _saved(run, each)["learner"]["agent_steps"]
        assert total / 2 <= steps < total / 2 + 2 * 8 * 7
    ends = {p["index"]: p["reason"] for p in harness.processes(run.workdir)[1:3]}
    assert ends == dict.fromkeys(range(2), "ended with exit code 0")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"learner.processes": 2}, "runtime.mode .lockstep. has one process"),
        (
            {"learner.processes": 3, "runtime.mode": "processes"},
            "learner.processes .3. must be at most .*2 policies play",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path, overrides, text
):
    with pytest.raises(errors.BadInput, match=text):
        program.train(policy_parts.config(**overrides), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
