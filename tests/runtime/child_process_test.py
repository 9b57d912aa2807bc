"""One seat: what it is called in each state, when it is hung, how it is ended."""

import errno
import itertools
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import time
import types
from multiprocessing import spawn

import pytest

from impala_mp.runtime import child_process, entry_points, pidfd
from impala_mp.transport import control_block
from tests.support import builders

_State = control_block.State
_LIMITS = {
    "health.start_secs": 10.0,
    "health.reset_secs": 20.0,
    "health.slow_secs": 3.0,
    "health.hang_secs": 5.0,
}


@pytest.fixture
def seat(tmp_path):
    """Actor 1, with a process that is a name only."""
    shared = builders.shared(builders.config(**_LIMITS), tmp_path)
    made = child_process.ChildProcess(
        shared.topology.actors[1], str(tmp_path / "log"), [shared], random.Random(0)
    )
    made.process = types.SimpleNamespace(pid=12345, exitcode=-9, close=lambda: None)
    made.incarnation = 4
    return made


def _silent(seat, state, seconds):
    seat.row.beat(state)
    seat.row.set("heartbeat_ns", time.monotonic_ns() - int(seconds * 1e9))


@pytest.mark.parametrize(
    ("state", "limit"),
    [
        (_State.NOT_STARTED, 10.0),
        (_State.STARTING, 10.0),
        (_State.RESETTING, 20.0),
        (_State.RUNNING, 5.0),
        (_State.WAITING_FOR_SLOT, 5.0),
        (_State.WAITING_FOR_DATA, 5.0),
        (_State.WAITING_FOR_INFERENCE, 5.0),
        (_State.STOPPING, 5.0),
    ],
)
def test_each_state_has_its_limit(seat, state, limit):
    _silent(seat, state, limit - 1.0)
    assert not seat.is_hung()
    assert seat.describe() in (state.name.lower(), "slow")
    _silent(seat, state, limit + 1.0)
    assert seat.is_hung()
    assert seat.describe() == "hung"


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200,
    reason="a process may not open that many files here",
)
def test_a_death_is_seen_beside_a_thousand_open_files(seat):
    """`select.select` takes no descriptor from 1,024 on."""
    null = os.open(os.devnull, os.O_RDONLY)
    held = [null, *(os.dup(null) for _ in range(1050))]
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        seat._pidfd = pidfd.of(sleeper.pid)
        assert seat._pidfd > 1023
        seat.close()
        assert sleeper.wait(5.0) == -signal.SIGKILL
        assert seat._pidfd == -1
    finally:
        sleeper.kill()
        for each in held:
            os.close(each)


def test_only_who_runs_can_be_slow(seat):
    for state in _State:
        _silent(seat, state, 4.0)
        expected = "slow" if state == _State.RUNNING else state.name.lower()
        assert seat.describe() == expected
    seat.process = None
    assert seat.describe() == "not_started"
    seat.deaths = 1
    assert seat.describe() == "restarting"
    seat.lost = True
    assert seat.describe() == "lost"


@pytest.mark.parametrize("started", [True, False])
def test_a_child_is_ended_in_stages_without_blocking(seat, monkeypatch, started):
    sent, clock = [], itertools.count(100.0, 0.25)
    state = _State.RUNNING if started else _State.NOT_STARTED
    _silent(seat, state, 70.0)
    monkeypatch.setattr(child_process.time, "monotonic", lambda: now)
    monkeypatch.setattr(
        child_process.ChildProcess,
        "_send",
        lambda self, number: sent.append((self.process.pid, number, now)),
    )
    now = next(clock)
    assert "its stacks go to" in seat.terminate()
    while now < 105.0:
        seat.escalate()
        assert not seat.is_hung()  # it is not ended twice
        assert seat.describe() == "hung"
        now = next(clock)
    stacks = [(12345, signal.SIGUSR1, 100.0)] if started else []
    assert sent == [
        *stacks,
        (12345, entry_points.END, 100.5),
        (12345, signal.SIGKILL, 101.5),
    ]
    assert seat.next_due() == float("inf")


def test_a_death_is_written_down_with_its_seeds_and_step(seat):
    _silent(seat, _State.RUNNING, 0.0)
    seat._steps_at_start = 1000
    seat.row.set("agent_steps", 3500)
    assert seat.reap() == -9
    assert seat.reason == (
        "was killed by SIGKILL after 2,500 agent steps (seeds of 0, actor 1,"
        " incarnation 4 of run 0)"
    )
    assert seat.policy.failed_starts == 0


_SEGFAULT = """Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "/home/me/thread.py", line 7 in poll

Current thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3/site-packages/cffi/api.py", line 90 in call
  File "/home/me/simulator.py", line 12 in advance
  File "/home/me/simulator.py", line 34 in step

Extension modules: numpy (total: 1)
"""


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("", ""),
        (
            "Traceback:\nCause: ValueError: x (a.py:1, in f)\n",
            ": ValueError: x (a.py:1, in f)",
        ),
        ("Cause: ValueError\nthread 'x' still runs\n", ": ValueError"),
        ("Cause: (a.py:1, in f)\n", " (a.py:1, in f)"),
        (
            _SEGFAULT,
            ": Fatal Python error: Segmentation fault (/home/me/simulator.py:12, in"
            " advance)",
        ),
        (_SEGFAULT.partition("\n\n")[2], " (/home/me/simulator.py:12, in advance)"),
    ],
)
def test_a_death_is_reported_with_the_users_line(seat, output, cause):
    with open(seat.log, "w") as file:
        file.write("Cause: of the incarnation before\n")
    seat._log_start = os.path.getsize(seat.log)
    with open(seat.log, "a") as file:
        file.write(output)
    _silent(seat, _State.RUNNING, 0.0)
    seat.reap()
    assert seat.reason.endswith(f"of run 0){cause}")


def test_a_start_without_room_is_a_failed_start(seat, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    seat.process = None
    monkeypatch.setattr(child_process.fork_server, "start", full)
    context = multiprocessing.get_context("forkserver")
    for count in (1, 2):
        with pytest.raises(OSError, match="No space"):
            seat.start(context, life=None)
        assert seat.process is None
        assert (
            seat.policy.failed_starts,
            seat.policy.short_lives,
            len(seat.policy.deaths),
        ) == (count,) * 3
    assert "No space left on device" in seat.reason
    assert seat.output() == ""
    assert seat.refusal() == seat.reason


def test_a_child_starts_if_the_current_folder_was_deleted(seat, tmp_path, monkeypatch):
    gone, found = tmp_path / "gone", []
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    def start():
        found.append(spawn.get_preparation_data("child")["dir"])

    child = types.SimpleNamespace(pid=os.getpid(), start=start)
    context = types.SimpleNamespace(Process=lambda **unused: child)
    monkeypatch.setattr(child_process.fork_server, "start", os.getcwd)
    seat.start(context, life=None)
    assert found == ["/"]
    assert seat.process is child
    os.close(seat._pidfd)


def test_a_death_before_the_first_step_is_a_failed_start(seat):
    states = (_State.NOT_STARTED, _State.STARTING, _State.RESETTING)
    for count, state in enumerate(states, 1):
        seat.process = types.SimpleNamespace(exitcode=1, close=lambda: None)
        _silent(seat, state, 0.0)
        seat.reap()
        assert seat.policy.failed_starts == count
