"""What the supervisor tells every few seconds, and keeps for the next record."""

import errno
import json
import os
import time

import numpy as np
import pytest

from impala_mp.monitoring import health, reporter
from impala_mp.storage import metrics
from impala_mp.workers import evaluator
from tests.support import builders

_STATUSES = [
    health.Status("supervisor", 0, 7, 0, "running", 0, 0.0, ""),
    health.Status("learner", 0, 8, 0, "waiting_for_data", 3, 0.0, ""),
]


class _Screen:
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)

    def update(self, record, bottleneck):
        pass

    def processes(self, statuses):
        pass


class _Run:
    """A learner that learns on demand, and a reporter of it."""

    def __init__(self, folder, **overrides):
        self.folder = folder
        config = builders.config(**overrides)
        self.parts = builders.parts(config, folder / "checkpoints")
        self.parts.training.restore(print)
        self.screen = _Screen()
        self.reporter = reporter.Reporter([self.parts.shared], str(folder), self.screen)

    def learn(self, record=True):
        for one in self.parts.actors:
            one.fetch()
            one.unroll()
        self.parts.training.step()
        if record:
            self.parts.training.write_record()

    def tick(self):
        self.reporter.tick(_STATUSES)
        return json.loads((self.folder / "health.json").read_text())


@pytest.fixture
def clock(monkeypatch):
    """Seconds that have passed beside the real ones."""
    late, real = [0.0], time.monotonic
    monkeypatch.setattr(reporter.time, "monotonic", lambda: real() + late[0])
    return late


def test_a_stall_is_what_was_not_learned_not_what_was_not_recorded(tmp_path, clock):
    """As with a record every 30 seconds."""
    run = _Run(tmp_path)
    run.learn()
    assert run.tick()["stall"] == ""
    for _ in range(3):
        clock[0] += 15.0
        run.learn(record=False)
        assert run.tick()["stall"] == ""
    clock[0] += 25.0
    assert "No update for 25 s. The learner is waiting" in run.tick()["stall"]
    assert len(run.screen.messages) == 1
    run.learn(record=False)
    assert run.tick()["stall"] == ""  # at once
    assert run.screen.messages[1:] == []


def test_a_repeated_record_is_written_once(tmp_path):
    """With its means, whichever of the two is read."""
    run = _Run(tmp_path)
    for number in (1, 2, 3):
        run.learn()
        if number % 2:
            run.tick()
        run.parts.training.write_record()
        run.tick()
        records = metrics.read(str(tmp_path))
        assert len(records) == number
        assert sum(records[-1]["lag/histogram"]) == 30
        assert "loss/total" in records[-1]


def test_an_evaluation_waits_for_the_next_record(tmp_path):
    run = _Run(tmp_path)
    run.learn()
    run.tick()
    played = evaluator.Played([1.0, 3.0], [9, 9], {}, [0, 1], [0, 0])
    seed = np.random.SeedSequence(0)
    line = evaluator.as_line({"": played}, "progress", "greedy", 9, 1, 0.1, seed, {})
    evaluated = evaluator.as_record(line)
    run.parts.shared.evaluation_record.write(evaluated)
    run.tick()
    assert "evaluation/return_mean" not in metrics.last(str(tmp_path))
    for expected in (True, False):
        run.learn()
        run.tick()
        assert ("evaluation/return_mean" in metrics.last(str(tmp_path))) == expected


def test_a_file_that_cannot_be_written_is_touched(tmp_path, monkeypatch):
    run = _Run(tmp_path)
    before = run.tick()
    os.utime(tmp_path / "health.json", (0.0, 0.0))

    def full(*unused, **others):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(health.files, "write_atomically", full)
    assert run.tick() == before
    assert time.time() - os.path.getmtime(tmp_path / "health.json") < 60.0
    assert "No space left" in run.screen.messages[0]


def test_counters_of_the_run_go_on_with_the_next_supervisor(tmp_path):
    for number in (1, 2, 3):
        run = _Run(tmp_path)
        first, second = map(run.parts.shared.row, run.parts.shared.topology.actors)
        first.add("bad_rewards", 5)
        second.add("torn_reads", 7)
        second.add("observations_outside", 9)
        run.learn()
        run.tick()
        run.parts.training.save()
        run.reporter.close()
        last = metrics.last(str(tmp_path))
        assert last["health/restarts"] == 3 * number
        assert last["health/bad_data"] == 5 * number
        assert last["health/observations_outside"] == 9 * number
        assert last["health/torn_reads_retried"] == 7 * number
        assert last["updates"] == number


def test_after_the_last_step_the_actors_time_stays_what_it_was(tmp_path):
    """Actors that have ended would seem to wait for the learner."""
    run = _Run(tmp_path)
    for one in run.parts.actors * 2:
        one.fetch()
        one.unroll()
    for _ in range(2):
        run.parts.training.step()
        run.parts.training.write_record()
        run.tick()
    first, second = metrics.read(str(tmp_path))
    keys = [key for key in first if key.startswith(("time/actor", "time/environment"))]
    assert first["time/environment_step_ms"] > 0.0
    assert [first[key] for key in keys] == [second[key] for key in keys]


def test_a_process_that_is_to_start_later_is_not_missed(tmp_path):
    late = health.Status("evaluator", 0, 0, 0, "not_started", 0, 0.0, "")
    dead = late._replace(state="restarting", restarts=1)
    run = _Run(tmp_path)
    for other, expected in ((late, (2, 2)), (dead, (2, 3))):
        run.learn()
        run.reporter.tick([*_STATUSES, other])
        last = metrics.last(str(tmp_path))
        found = last["health/processes_alive"], last["health/processes_total"]
        assert found == expected
