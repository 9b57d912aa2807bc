"""The benchmark's forked processes: it never waits for a dead one, nor leaves one."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types

import pytest

import harness
from benchmarks import children, context as context_lib, parts, ranks, transport
from impala_mp.config import container_limits
from tests.support import builders

_BENCHMARK = """
import os, signal, sys, time
from benchmarks import children

def work():
    print(os.getpid(), flush=True)
    time.sleep(600.0)

signal.signal(signal.SIGTERM, lambda *unused: None)
children.start(work)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_benchmark_that_ends_leaves_no_process(is_killed):
    with subprocess.Popen(
        [sys.executable, "-c", _BENCHMARK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        pid = int(process.stdout.readline())
        try:
            if is_killed:
                process.kill()
            process.stdin.close()
            process.wait(20.0)
            assert harness.survivors([pid], 20.0) == []
        finally:
            if harness.is_alive(pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()


@pytest.fixture
def _no_child_is_left():
    yield
    for child in multiprocessing.active_children():
        children.end(child)


def _die(*unused):
    os._exit(3)


def _learn(context, port, rank, row, answers):
    _die() if rank else time.sleep(600.0)


def _live_update(context=None):
    config = builders.config()
    options = context_lib.Options(1, 0.0, 0, 0.0, 0)
    parts._Live(context_lib.Context(config, [], options)).update()


@pytest.mark.parametrize(
    ("place", "name", "child", "measure"),
    [
        (
            *(transport, "_write_slots", _die),
            lambda: transport._slots_per_sec(transport._image_slot()),
        ),
        (transport, "_echo", _die, transport._wake_up_secs),
        (transport, "_SECS", 1.0, lambda: transport._waiting_core_share(_die)),
        (parts._Live, "_feed", _die, _live_update),
        (
            *(ranks, "_learn", _learn),
            lambda: ranks.learner_ranks(
                types.SimpleNamespace(options=types.SimpleNamespace(repeats=1))
            ),
        ),
    ],
)
@pytest.mark.usefixtures("_no_child_is_left")
def test_a_dead_process_ends_its_subject(monkeypatch, place, name, child, measure):
    monkeypatch.setattr(place, name, child)
    with pytest.raises(RuntimeError, match="exit code 3"):
        measure()


@pytest.mark.parametrize(("quotas", "count", "cores"), [([1.5], 2, 64), ([], 3, 3)])
def test_emulators_keep_to_the_cores_of_a_container(monkeypatch, quotas, count, cores):
    bound, start = children.FORK.SimpleQueue(), children.start
    started = []
    monkeypatch.setattr(children, "start", lambda *a: started.append(a) or start(*a))
    monkeypatch.setattr(container_limits, "_quotas", lambda: quotas)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: bound.put(cores))
    monkeypatch.setattr(parts, "_raw_step", lambda context: lambda: None)
    monkeypatch.setattr(parts, "EMULATED_SECS", 0.01)
    config = builders.config()
    assert parts._rate_of_all_cores(types.SimpleNamespace(config=config)) > 0.0
    assert len(started) == count
    found = []
    while not bound.empty():
        found += bound.get()
    assert sorted(found) == ([] if quotas else list(range(count)))
