"""The intake keeps its bound at every moment, for any arrivals and deaths."""

import math
import types as python_types

import hypothesis
import pytest
from hypothesis import strategies as st

from impala_mp import errors
from impala_mp.config import validation
from impala_mp.runtime import program
from impala_mp.workers import intake
from tests.support import builders

_DQN = {
    "algorithm": "dqn",
    "vtrace.lambda_": 0.95,  # the default: it has no effect
    "target.period": 4,
    "replay.reuse": 2.0,
    "replay.start": 12,
    "replay.memory_mib": 0.1,
}


class _Store:
    """A replay of which only the size counts."""

    def __init__(self, capacity):
        self.size, self._capacity = 0, capacity

    def add(self, count):
        self.size = min(self._capacity, self.size + count)


def _settings(reuse, start):
    return python_types.SimpleNamespace(reuse=reuse, start=start)


def _excess(made, reuse):
    return made.learned - reuse * (made.inserted - made.filled)


@hypothesis.given(
    reuse=st.sampled_from([0.1, 0.5, 1.0, 1.5, 4.0, 7.3, 32.0]),
    start=st.integers(0, 60),
    slot=st.integers(1, 16),
    batch=st.integers(1, 64),
    events=st.lists(st.sampled_from("aaaaaad"), min_size=20, max_size=300),
)
@hypothesis.settings(deadline=None, max_examples=200)
def test_the_bound_holds_at_every_moment(reuse, start, slot, batch, events):
    """Arrivals (a) at any time, and deaths (d) of a learner that keeps no replay."""
    store = _Store(capacity=200)
    made = intake.Intake(_settings(reuse, start), store)
    saved, waiting = made.state_dict(), 0
    for event in events:
        if event == "d":  # from the last checkpoint, with an empty replay
            store = _Store(capacity=200)
            made = intake.Intake(_settings(reuse, start), store)
            made.load_state_dict(saved)
        else:
            waiting += 1
        while (waiting and made.may_insert) or made.may_learn:
            assert made.may_insert != made.may_learn or made.is_filling
            if made.may_learn:
                assert store.size >= start
                made.learn(batch)
                saved = made.state_dict()
            else:
                made.insert(slot)
                store.add(slot)
                waiting -= 1
            assert -reuse * slot - 1e-6 < _excess(made, reuse) <= batch + 1e-6
    if "d" not in events:
        assert made.filled == min(made.inserted, -(-max(1, start) // slot) * slot)


def test_free_running_waits_for_nothing_but_the_start():
    store = _Store(100)
    made = intake.Intake(_settings(math.inf, 6), store)
    for _ in range(2):
        assert made.may_insert
        assert not made.may_learn
        made.insert(3)
        store.add(3)
    for _ in range(50):
        assert made.may_insert
        assert made.may_learn
        made.learn(8)


def test_the_measured_reuse_is_the_one_that_is_set():
    store = _Store(100)
    made = intake.Intake(_settings(4.0, 10), store)
    assert math.isnan(made.metrics()["replay/reuse"])
    for _ in range(2000):
        if made.may_learn:
            made.learn(16)
        else:
            made.insert(2)
            store.add(2)
    assert made.metrics()["replay/reuse"] == pytest.approx(4.0, rel=0.02)


def test_a_learner_holds_the_bound_and_the_identity(tmp_path):
    """Real rings, replay and learner; slots of 3 and batches of 6 trajectories."""
    parts = builders.parts(builders.config(**_DQN), tmp_path)
    loop = parts.training
    loop.restore(print)
    made, slot, batch = loop._batcher.intake, 3, 6
    for _ in range(30):
        for one in parts.actors:
            if parts.shared.rings.ring(one._index).has_space():
                one.fetch()
                one.unroll()
        while loop.ready():
            loop.step()
            assert -2.0 * slot < _excess(made, 2.0) <= batch
            counts = loop._accounts.counts()
            assert counts["learned"] == made.inserted
            assert counts["committed"] == sum(list(counts.values())[1:])
    assert made.filled == 12
    assert made.learned > 100
    assert loop._learner.agent_steps == 5 * made.inserted
    metrics = loop.updates.take()
    assert metrics["loss/td"] > 0.0


def test_a_checkpoint_keeps_the_counts_and_an_empty_replay_is_filled_again(tmp_path):
    parts = builders.parts(builders.config(**_DQN), tmp_path)
    loop = parts.training
    loop.restore(print)
    for _ in range(8):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        while loop.ready():
            loop.step()
    before = loop._batcher.intake.state_dict()
    assert loop.save()
    again = builders.parts(builders.config(**_DQN), tmp_path).training
    again.restore(print)
    made = again._batcher.intake
    assert made.state_dict() == before
    assert made.is_filling
    assert not made.may_learn


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"replay.ratio": 0.5}, "draws all of a batch from the replay"),
        (
            {"algorithm": "vtrace", "target.period": 1},
            "needs data of the newest policy",
        ),
        ({"replay.start": -1}, "replay.start"),
        ({"replay.reuse": -1.0}, "replay.reuse"),
        (
            {"replay.reuse": 0.0, "replay.ratio": 0.5},
            r"replay.start \(12\) has no effect",
        ),
        ({"network.core": "lstm"}, "without replay.burn_in"),
    ],
)
def test_bad_input_is_a_sentence(overrides, sentence):
    config = builders.config(**{**_DQN, **overrides})
    with pytest.raises(errors.BadInput, match=sentence):
        validation.validate(config, num_cores=2)


def test_a_start_that_the_replay_cannot_hold(tmp_path):
    config = builders.config(
        **{**_DQN, "replay.start": 10_000, "evaluation.greedy": True}
    )
    with pytest.raises(errors.BadInput, match=r"replay.start \(10000\) is more than"):
        program.train(config, str(tmp_path))
