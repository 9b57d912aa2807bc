"""Runs of a user bind their threads to different cores, or to none."""

import errno
import multiprocessing
import os
import tempfile

import pytest

from impala_mp.config import container_limits
from impala_mp.runtime import core_lease
from tests.support import builders


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Four cores that no run has yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(container_limits, "cores_to_bind", lambda: [2, 3, 5, 7])
    return tmp_path


def _lease(count, ends, end):
    """Another run: sends its cores and its sentence, and lives until `end`."""
    made = core_lease.Lease(count)
    ends.send((made.cores, made.sentence))
    end.wait(60)


class _Others:
    def __init__(self):
        self._context = multiprocessing.get_context("fork")
        self._started = []

    def start(self, count):
        here, there = self._context.Pipe()
        end = self._context.Event()
        process = self._context.Process(target=_lease, args=(count, there, end))
        process.start()
        self._started.append(process)
        assert here.poll(60)
        return process, here.recv()

    def kill(self):
        for process in self._started:
            process.kill()
            process.join(60)


@pytest.fixture
def others():
    made = _Others()
    yield made
    made.kill()


def test_runs_side_by_side_have_different_cores(others):
    _, first = others.start(2)
    _, second = others.start(1)
    assert (first, second) == (([2, 3], ""), ([5], ""))
    mine = core_lease.Lease(2)
    assert mine.cores == []
    assert "1 are free for the 2 threads" in mine.sentence
    _, fourth = others.start(1)  # nothing is kept of a lease that failed
    assert fourth == ([7], "")


def test_a_killed_run_gives_its_cores_back(others):
    process, (cores, _) = others.start(4)
    assert cores == [2, 3, 5, 7]
    assert core_lease.Lease(4).cores == []
    process.kill()
    process.join(60)
    mine = core_lease.Lease(4)
    assert (mine.cores, mine.sentence) == ([2, 3, 5, 7], "")
    assert others.start(1)[1][0] == []
    mine.close()
    assert others.start(1)[1][0] == [2]


def test_more_threads_than_cores_lease_none(others):
    mine = core_lease.Lease(5)
    assert (mine.cores, mine.sentence) == ([], "")
    assert others.start(4)[1][0] == [2, 3, 5, 7]


def test_without_a_place_for_the_file_a_run_is_as_alone(machine, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(machine / "none"))
    assert core_lease.Lease(2).cores == [2, 3]


def test_a_link_in_the_place_of_the_file_is_not_followed(machine):
    target = machine / "precious"
    made = core_lease.Lease(1)
    made.close()
    (place,) = machine.iterdir()
    place.unlink()
    place.symlink_to(target)
    assert core_lease.Lease(1).cores == [2]
    assert not target.exists()


def test_a_lease_has_a_core_for_each_thread():
    config = builders.config(**{"actors.count": 2, "learner.threads": 1})
    made = core_lease.of_run(config, 4)
    assert made.cores == [2, 3, 5]
    made.close()
    config.runtime.mode = "lockstep"
    assert core_lease.of_run(config, 4).cores == []


def test_a_file_system_without_locks_is_no_other_run(monkeypatch):
    def refuse(*unused):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(core_lease.fcntl, "lockf", refuse)
    made = core_lease.Lease(2)
    assert (made.cores, made.sentence) == ([2, 3], "")


def test_a_new_lease_makes_the_file_new(machine):
    """Folders for temporary files lose files that are old."""
    core_lease.Lease(1).close()
    (file,) = machine.iterdir()
    os.utime(file, (0.0, 0.0))
    core_lease.Lease(1).close()
    assert file.stat().st_mtime > 10**9
