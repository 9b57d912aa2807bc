"""Processes of an actor host: the engine's, the host's and its actors."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import harness
from impala_mp.transport import host_messages
from tests.support import relayed

pytestmark = pytest.mark.integration
_SECS = 60.0  # for anything to happen, on a busy machine
_NEVER = 1000.0


class _Host:
    def __init__(self, process):
        self.process = process
        self.pid = int(process.stdout.readline())

    def ask(self, *, parameters=0, **question):
        asked = host_messages.Question(**{"incarnation": 1, "next": 0, **question})
        line = json.dumps([host_messages.to_dict(asked), parameters])
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def begin(self):
        """Begins an incarnation; returns its first reply."""
        assert self.ask()["state"] == host_messages.NEW
        reply = self.ask(begin=True, room=2, poll_secs=0.2, names=[[]])
        while reply["state"] == host_messages.STARTING:
            reply = self.ask(room=2, poll_secs=0.2)
        return reply

    def below(self):
        """Returns the pids of all processes that it started."""
        return _family(self.pid)[1:]


def _family(pid):
    """Returns the pid, and those of all processes below it."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents[int(name)] = harness.parent(int(name))
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


@contextlib.contextmanager
def _started(orphan_secs=_NEVER):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.relayed", str(orphan_secs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Host(process)
    finally:
        process.kill()
        process.communicate()


def _num_bytes(reply):
    return int(dict(reply["facts"])["parameters"].split()[0])


def test_slots_come_through_a_process_without_torch():
    with _started() as host:
        reply = host.begin()
        assert not reply["torch"]  # with the facts of the host
        counters = dict(reply["counters"])
        version, size = 1, _num_bytes(reply)
        end = time.monotonic() + _SECS
        while not reply["slots"]:
            assert time.monotonic() < end
            reply = host.ask(room=2, poll_secs=0.2, version=version, parameters=size)
        assert counters["pid"] == host.pid
        assert reply["incarnation"] == reply["version"] == 1


def test_no_process_outlives_the_engines():
    with _started() as host:
        host.begin()
        assert harness.wait_for(lambda: len(host.below()) >= 4, _SECS)
        below = host.below()
        host.process.kill()
        assert not harness.survivors(below, _SECS)


def test_the_engines_process_ends_with_a_killed_host():
    with _started() as host:
        host.begin()
        below = host.below()
        served = [p for p in below if harness.parent(harness.parent(p)) == host.pid]
        os.kill(served[0], signal.SIGKILL)  # the child of its fork server
        assert host.process.wait(_SECS) == 1
        assert not harness.survivors(below, _SECS)


def test_a_host_that_is_not_asked_leaves_for_good():
    with _started(orphan_secs=5.0) as host:
        host.begin()
        assert harness.wait_for(lambda: len(host.below()) >= 4, _SECS)
        below = host.below()
        assert host.process.wait(_SECS) == relayed.LEFT
        assert not harness.survivors(below, _SECS)
