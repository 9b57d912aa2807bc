"""Several processes that learn: each empties its rings until all are finished."""

import pytest

from impala_mp.storage import checkpoint
from impala_mp.transport import doorbell
from impala_mp.workers import learner_loop, learner_process
from tests.support import policy_parts

_UPDATES = (3, 6)  # after which each policy is finished


class _Died(Exception):
    """The process is killed."""


class _Run:
    """Two processes that learn a policy each; the second is played by hand."""

    def __init__(self, folder, monkeypatch):
        made = policy_parts.config(
            **{
                "runtime.mode": "processes",
                "learner.processes": 2,
                "checkpoint.interval_secs": 1000.0,
            }
        )
        made.policies = {}
        self.shared = policy_parts.shared(made, folder)
        self.loops = policy_parts.loops(self.shared)
        for loop in self.loops:
            loop.restore(print)
        self._waits = 0
        self._actor, self.each_wait = policy_parts.actor(self.shared), lambda: None
        monkeypatch.setattr(doorbell, "wait_for_any", lambda *_: self._wait())
        monkeypatch.setattr(
            learner_loop.LearnerLoop,
            "finished",
            property(lambda x: x._learner.updates >= _UPDATES[x.control.policy]),
        )

    def _wait(self):
        """Lets the actor and the second process work while the first one waits."""
        self._waits += 1
        assert self._waits < 200
        self.each_wait()
        if not self.loops[1].finished:
            self.loops[1].turn()
        if self._actor.has_space():
            self._actor.fetch()
            self._actor.guarded_unroll()

    def first(self):
        """Runs the first process to its end."""
        others = [self.shared[1].control.books[0]]
        learner_process.run(self.loops[:1], 1.0, others=others)

    def books(self, policy):
        return self.shared[policy].control.books[0]

    def newest(self, policy):
        folder = self.shared[policy].checkpoints
        return checkpoint.load_newest(folder, print)

    def close(self):
        self._actor.close()


@pytest.fixture
def run(tmp_path, monkeypatch):
    made = _Run(tmp_path, monkeypatch)
    yield made
    made.close()


def test_a_finished_process_discards_until_the_others_are_finished(run):
    """Without that, no actor would have space, and the other policy no data."""

    def each_wait():
        if run.loops[1].finished:
            run.books(1).set("is_over", 1)

    run.each_wait = each_wait
    run.first()
    assert [loop._learner.updates for loop in run.loops] == [*_UPDATES]
    counts = run.newest(0)["counts"]
    assert counts["learned"] == 3 * 8
    assert counts["discarded"] >= 2 * 8
    assert counts["committed"] == counts["learned"] + counts["discarded"]
    assert run.books(0).get("is_over") == 1


def test_a_policy_is_saved_before_others_know_that_it_is_finished(run):
    """So that a process which is killed afterwards never learns again."""

    def each_wait():
        if run.books(0).get("is_over"):
            raise _Died

    run.each_wait = each_wait
    with pytest.raises(_Died):
        run.first()
    assert run.newest(0)["learner"]["updates"] == _UPDATES[0]
    (again, _) = policy_parts.loops(run.shared)
    run.shared[0].learner_memory.discard()
    again.restore(print)
    assert again.finished


def test_a_process_that_is_finished_last_lets_the_others_know(run):
    """They wait for it."""
    run.books(1).set("is_over", 1)
    run.first()
    assert run.books(0).get("is_over") == 1
    assert run.loops[0]._accounts.counts()["discarded"] == 0


def test_a_process_that_is_stopped_is_not_over(run):
    run.each_wait = run.shared[0].control.stop
    run.first()
    assert run.books(0).get("is_over") == 0
    assert run.newest(0) is not None


def _full(*unused, **others):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("word", [1, -1])
def test_processes_on_a_full_disk_end(run, monkeypatch, word):
    """None waits for another that cannot save either."""
    monkeypatch.setattr(checkpoint, "save", _full)

    def each_wait():
        if run.loops[1].finished:
            run.books(1).set("is_over", word)

    run.each_wait = each_wait
    with pytest.raises(learner_loop.NotSaved):
        run.first()
    assert run.loops[1].finished
    assert run.books(0).get("is_over") == -1


def test_a_full_disk_delays_the_announcement_while_others_learn(run, monkeypatch):
    """It is tried once an interval."""
    save, attempts, num_waits = checkpoint.save, [], []

    def full_for_a_while(*args, **others):
        attempts.append(len(num_waits))
        return (_full if len(attempts) < 3 else save)(*args, **others)

    def each_wait():
        num_waits.append(1)
        if run.loops[0].finished:
            run.loops[0].checkpoints._saved -= 250.0  # a quarter of the interval
        if run.books(0).get("is_over") == 1 and run.loops[1].finished:
            run.books(1).set("is_over", 1)

    monkeypatch.setattr(checkpoint, "save", full_for_a_while)
    run.loops[0].checkpoints.num_saved = 1
    run.each_wait = each_wait
    run.first()
    first, second, third, *_ = attempts
    assert (second - first, third - second) == (4, 4)
    assert run.books(0).get("failed_checkpoints") == 2
    assert run.newest(0)["learner"]["updates"] == _UPDATES[0]
    assert run.loops[1].finished
