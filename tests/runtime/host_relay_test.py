"""Processes of an actor host: the engine's, the host's and its actors."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import harness
from impala_mp.transport import host_messages
from tests.support import relayed

_ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration
_SECS = 60.0  # for anything to happen, on a busy machine
_NEVER = 1000.0


class _Engine:
    """The engine's process, and the receiver's end."""

    def __init__(self, process):
        self.process = process
        self.pid = int(process.stdout.readline())

    def ask(self, *, parameters=0, **question):
        (reply,) = self.ask_all([(question, parameters)])
        return reply

    def ask_all(self, asked):
        """Asks for each policy: fields of a question, and bytes of parameters."""
        line = []
        for fields, parameters in asked:
            question = host_messages.Question(**{"incarnation": 1, "next": 0, **fields})
            line.append((host_messages.to_dict(question), parameters))
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def begin(self):
        """Begins an incarnation; returns the first reply with facts, and the last.

        Then the actor lives.
        """
        assert self.ask()["state"] == host_messages.NEW
        reply = self.ask(begin=True, room=2, poll_secs=0.2, names=[[]])
        while reply["state"] == host_messages.STARTING:
            reply = self.ask(room=2, poll_secs=0.2)
        first = reply
        end = time.monotonic() + _SECS
        while not dict(reply["counters"])["alive"]:
            assert time.monotonic() < end
            reply = self.ask(room=2, poll_secs=0.2)
        return first

    def below(self):
        """Returns the pids of all processes that it started."""
        return harness.family([self.pid]) - {self.pid}

    def host(self):
        """Returns the pid of the host: the child of the engine's fork server."""
        parent = harness.parent
        return next(p for p in self.below() if parent(parent(p)) == self.pid)


def _process(folder, *arguments, stderr=None):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.relayed", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        cwd=_ROOT,
    )


@contextlib.contextmanager
def _started(folder, orphan_secs=_NEVER, *arguments):
    process = _process(folder, str(orphan_secs), *arguments)
    try:
        yield _Engine(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def test_slots_come_through_a_process_without_torch(tmp_path):
    with _started(tmp_path) as engine:
        reply = engine.begin()
        assert not reply["torch"]
        assert dict(reply["counters"])["pid"] == engine.pid
        size = int(dict(reply["facts"])["parameters"].split()[0])
        end = time.monotonic() + _SECS
        while not reply["slots"]:
            assert time.monotonic() < end
            reply = engine.ask(room=2, poll_secs=0.2, version=1, parameters=size)
        assert reply["incarnation"] == reply["version"] == 1

        wrong = engine.ask(next=1_000_000)  # an error in the host is its reply
        assert wrong["state"] == host_messages.FAILED
        assert "slot 1000000 is asked for" in wrong["failure"]
        assert engine.ask()["state"] == host_messages.FAILED


_GAME = "tests.support.rock_paper_scissors:RockPaperScissors"


def test_a_call_brings_slots_of_all_policies_and_none_waits_for_another(tmp_path):
    """Actors need a free slot of each policy, so all are released before the wait."""
    with _started(tmp_path, _NEVER, "60", _GAME) as engine:
        ask = {"room": 8, "poll_secs": 0.2}
        begin = {**ask, "begin": True}
        both = [({**begin, "names": [[]]}, 0), ({**begin, "incarnation": 7}, 0)]
        assert [x["state"] for x in engine.ask_all([(ask, 0)] * 2)] == ["new", "new"]
        replies = engine.ask_all(both)
        others = [{"incarnation": 1, **ask}, {"incarnation": 7, **ask}]
        while replies[0]["state"] == host_messages.STARTING:
            replies = engine.ask_all([(each, 0) for each in others])
        facts = [dict(reply["facts"]) for reply in replies]
        assert [x["incarnation"] for x in replies] == [1, 7]
        assert (
            not set(facts[0])
            - set(facts[1])
            - {f"{name} of player_0" for name in ("environment", "slot", "parameters")}
        )
        sizes = [
            int(fact[f"parameters of player_{k}"].split()[0])
            for k, fact in enumerate(facts)
        ]
        asked = [
            ({**each, "version": 1}, size)
            for each, size in zip(others, sizes, strict=True)
        ]
        arrived, calls, waits = [0, 0], 0, 0
        end = time.monotonic() + _SECS
        while min(arrived) < 100:
            assert time.monotonic() < end
            time.sleep(0.05)  # so that the rings of the host are full
            replies = engine.ask_all(asked)
            arrived = [
                have + reply["slots"]
                for have, reply in zip(arrived, replies, strict=True)
            ]
            if max(arrived):
                calls += 1
                waits += max(reply["waited_ns"] for reply in replies) > 0.19e9
            asked = [
                ({**each, "next": count}, 0)
                for each, count in zip(others, arrived, strict=True)
            ]
        assert waits <= 0.03 * calls  # a wait of all that time is a stall


def test_no_process_outlives_the_engines_even_if_the_host_is_frozen(tmp_path):
    with _started(tmp_path) as engine:
        engine.begin()
        below = engine.below()
        assert len(below) >= 5  # two fork servers, the tracker, the host, its actor
        os.kill(engine.host(), signal.SIGSTOP)
        engine.process.kill()
        assert not harness.survivors(below, _SECS)


@pytest.mark.parametrize("victim", ["host", "fork server"])
def test_the_engines_process_ends_with_its_host(tmp_path, victim):
    with _started(tmp_path) as engine:
        engine.begin()
        below, host = engine.below(), engine.host()
        pid = host if victim == "host" else harness.parent(host)
        os.kill(pid, signal.SIGKILL)
        assert engine.process.wait(_SECS) == 1
        assert not harness.survivors(below, _SECS)


def test_a_host_that_is_not_asked_leaves_for_good(tmp_path):
    with _started(tmp_path, orphan_secs=5.0) as engine:
        engine.begin()
        below = engine.below()
        assert engine.process.wait(_SECS) == relayed.LEFT
        assert not harness.survivors(below, _SECS)
        assert not os.listdir(tmp_path)


_HANGS = "import sys, time; 'forkserver' in str(sys.orig_argv) and time.sleep(1e6)"


def test_a_start_that_hangs_fails_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(_HANGS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    process = _process(tmp_path, str(_NEVER), "0.2", stderr=subprocess.PIPE)
    _, text = process.communicate(timeout=_SECS)  # until no process has the pipe
    assert process.returncode == 1
    assert "RuntimeError: the processes of this host did not start" in text
