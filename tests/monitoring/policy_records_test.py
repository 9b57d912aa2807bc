"""Records of several learner processes: each may die, and goes back alone."""

import random
from math import nan

import pytest

import harness
from impala_mp.monitoring import health, policy_records, reporter as reporter_lib
from impala_mp.storage import metrics
from tests.support import policy_parts

_STATUSES = [health.Status("supervisor", 0, 7, 0, "running", 0, 0.0, "")]


class _Screen:
    def message(self, text):
        pass

    def update(self, record, bottleneck):
        pass

    def processes(self, statuses):
        pass


class _Learner:
    """One policy's learner, which writes records, dies, and resumes."""

    def __init__(self, shared):
        self._shared, self._incarnation = shared, 0
        self._states = [(0, 0, 0.0, 0)]  # steps, updates, seconds, games
        self._counts = {"committed": 0, "learned": 0, "discarded": 0}
        self.resume(0)

    @property
    def state(self):
        return self._states[-1]

    def resume(self, back):
        """Continues from `back` states before the newest one."""
        del self._states[max(1, len(self._states) - back) :]
        self._restored = self.state
        self.record()

    def die(self, back):
        self._incarnation += 1
        self.resume(back)

    def learn(self, rng):
        steps, updates, secs, games = self.state
        new = (steps + rng.choice((0, 56)), updates + 1, secs + rng.random(), games + 1)
        self._states.append(new)
        self._counts["learned"] += 8
        self._counts["discarded"] += rng.choice((0, 8))

    def record(self, **others):
        names = ("agent_steps", "updates", "time_secs")
        row = dict.fromkeys(self._shared.learner_record._names, 0.0)
        row |= dict(zip((*names, "episode/count"), self.state, strict=True))
        row |= {f"restored/{n}": x for n, x in zip(names, self._restored, strict=False)}
        row["restored/incarnation"] = self._incarnation
        counts = self._counts
        counts["committed"] = counts["learned"] + counts["discarded"]
        row |= {f"health/{name}": count for name, count in counts.items()}
        self._shared.learner_record.write(row | others)


def _shared(folder, processes):
    overrides = {"runtime.mode": "processes", "learner.processes": processes}
    config = policy_parts.config(**overrides)
    config.policies = {}
    return policy_parts.shared(config, folder)


def _reported(shared, folder, rng):
    """Returns a reporter and two learners, with six records of each."""
    learners = [_Learner(each) for each in shared]
    reporter = reporter_lib.Reporter(shared, str(folder), _Screen())
    for _ in range(6):
        for learner in learners:
            learner.learn(rng)
            learner.record()
        reporter.tick(_STATUSES)
    return reporter, *learners


@pytest.fixture(scope="module", params=[1, 2])
def shared(request, tmp_path_factory):
    return _shared(tmp_path_factory.mktemp("run"), request.param)


@pytest.mark.parametrize("seed", range(2))
def test_no_counter_of_any_policy_runs_backwards(shared, tmp_path, seed):
    """Whichever process dies, as often as it likes, and resumes from wherever."""
    rng = random.Random(seed)
    for each in shared:
        each.learner_record.read()
    learners = [_Learner(each) for each in shared]
    reporter = reporter_lib.Reporter(shared, str(tmp_path), _Screen())
    alone = shared[0].config.learner.processes == 2
    for _ in range(100):
        for learner in learners:
            if rng.random() < 0.8:
                learner.learn(rng)
            if rng.random() < 0.5:
                learner.record()
        if rng.random() < 0.08:
            for learner in [rng.choice(learners)] if alone else learners:
                learner.die(rng.randrange(5))
        if rng.random() < 0.5:
            reporter.tick(_STATUSES)
    for learner in learners:
        learner.learn(rng)
        learner.record()
    reporter.tick(_STATUSES)
    records = metrics.read(str(tmp_path))
    reporter.close()
    assert len(records) > 5
    assert harness.never_backwards(records)
    assert all(map(harness.identity_holds, records))
    for learner, each in zip(learners, shared, strict=True):
        assert records[-1][f"updates/{each.policy}"] == learner.state[1]


def test_records_before_the_restored_state_stay(tmp_path):
    """The other process has learned in between, and its counts are no reason."""
    shared = _shared(tmp_path / "memory", 2)
    rng = random.Random(0)
    reporter, first, second = _reported(shared, tmp_path, rng)
    second.die(2)
    reporter.tick(_STATUSES)
    for learner in (first, second):
        learner.learn(rng)
        learner.record()
    reporter.tick(_STATUSES)
    reporter.close()
    records = metrics.read(str(tmp_path))
    found = [[r[f"updates/{each.policy}"] for r in records] for each in shared]
    assert found == [[1, 2, 3, 4, 7], [1, 2, 3, 4, 5]]


def test_time_is_that_of_the_busiest_process_and_memory_that_of_all(tmp_path):
    shared = _shared(tmp_path, 2)
    first, second = map(_Learner, shared)
    records = policy_records.PolicyRecords(shared)
    first.record(**{"time/learner_wait": 0.9, "time/learner_update": 0.1})
    second.record(**{"time/learner_wait": 0.2, "time/learner_update": 0.7})
    *_, (merged, _) = records.read()
    assert merged["time/learner_wait"] == 0.2
    assert merged["time/learner_update"] == 0.7
    assert merged["time/learner_wait/player_0"] == 0.9
    shared[1].control.books[0].set("is_over", 1)  # its process only discards
    first.record(**{"time/learner_wait": 0.9, "memory/device_mib": 300.0})
    second.record(**{"time/learner_wait": 0.2, "memory/device_mib": 200.0})
    *_, (merged, _) = records.read()
    assert merged["time/learner_wait"] == 0.9
    assert merged["memory/device_mib"] == 500.0
    for learner in (first, second):
        learner.record(**{"memory/device_mib": nan, "time/learner_wait": nan})
    *_, (merged, _) = records.read()
    assert merged["memory/device_mib"] != merged["memory/device_mib"]


def test_policies_of_one_process_share_its_time(tmp_path):
    shared = _shared(tmp_path, 1)
    first, second = map(_Learner, shared)
    records = policy_records.PolicyRecords(shared)
    for learner, update in ((first, 0.25), (second, 0.5)):
        own = {"time/learner_update": update, "time/learner_wait": 0.1}
        learner.record(**own, **{"memory/device_mib": 300.0})
    *_, (merged, _) = records.read()
    assert merged["time/learner_update"] == 0.75
    assert merged["time/learner_wait"] == pytest.approx(0.1)
    assert merged["memory/device_mib"] == 300.0


def test_records_beyond_the_restored_state_go_although_it_is_passed_again(tmp_path):
    """The first policy of a process has learned before the second reports."""
    shared = _shared(tmp_path / "memory", 1)
    rng = random.Random(0)
    reporter, first, second = _reported(shared, tmp_path, rng)
    first.die(4)
    for _ in range(2):
        first.learn(rng)
        first.record()
    second.die(0)
    reporter.tick(_STATUSES)
    first.learn(rng)
    first.record()
    reporter.tick(_STATUSES)
    reporter.close()
    found = [r["updates/player_0"] for r in metrics.read(str(tmp_path))]
    assert found == [1, 2, 4, 5]
