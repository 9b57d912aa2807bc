"""What a restarted learner resumes from: its state in shared memory, bit for bit."""

import math

import numpy as np
import pytest
import torch

from impala_mp.algorithms import replay
from impala_mp.storage import episodes
from impala_mp.transport import learner_memory
from impala_mp.workers import builders as worker_builders, learner_state, publisher
from tests.support import builders, lockstep_runs

_BY_VALUE = {
    "replay.reuse": 1.0,
    "replay.start": 6,
    "replay.memory_mib": 0.2,
    "target.period": 3,
}
_VARIANTS = {
    "impala": {},
    "adam": {"optimizer.name": "adam", "optimizer.momentum": 0.9},
    "normalised": {
        "environment.id": "CartPole-v1",
        "network.normalise_observations": True,
    },
    "popart": {"loss.popart": True, "loss.popart_beta": 0.1},
    "impact": {"algorithm": "impact", "target.period": 3, "learner.passes": 2},
    "delayed": {"actors.policy_delay": 4},
    "replay": {"replay.ratio": 0.5},
    "dqn": {
        **_BY_VALUE,
        "algorithm": "dqn",
        "environment.id": "CartPole-v1",
        "network.normalise_observations": True,
        "loss.popart": True,
        "loss.popart_beta": 0.1,
    },
    "iqn": {**_BY_VALUE, "algorithm": "iqn"},
    "tasks": {"environment.id": "CartPole-v1, CartPole-v0"},
}


@pytest.fixture(autouse=True)
def _after_every_update(monkeypatch):
    monkeypatch.setattr(learner_state, "_SHARE", math.inf)


def _parts(tmp_path, **overrides):
    parts = builders.parts(builders.config(**overrides), tmp_path / "checkpoints")
    parts.training.restore(print)
    return parts


def _learn(parts, updates=1, training=None):
    training = training or parts.training
    end = training._learner.updates + updates
    while training._learner.updates < end:
        if training.ready():
            training.step()
            continue
        for i, one in enumerate(parts.actors):
            if parts.shared.rings.ring(i).has_space():
                one.fetch()
                one.unroll()


def _successor(parts, said=None):
    """The next incarnation of the learner, restored."""
    torch.manual_seed(12345)
    seat = parts.shared.topology.learner()
    training = worker_builders.make_learner(seat, parts.shared)
    training.restore([].append if said is None else said.append)
    return training


def _state(training):
    counts = training._accounts.counts()
    found = training._state(counts)
    found.pop("replay", None)
    for name in ("counts", "time_secs"):
        del found[name]
    return found


def _assert_resumes(parts):
    before = _state(parts.training)
    said = []
    training = _successor(parts, said)
    update = before["learner"]["updates"]
    assert said == [
        f"Resuming from update {update} in shared memory. There is no checkpoint."
    ]
    lockstep_runs.assert_same(_state(training), before)
    return training


@pytest.mark.parametrize("variant", _VARIANTS)
def test_a_learner_resumes_from_the_state_of_its_predecessor(tmp_path, variant):
    parts = _parts(tmp_path, **_VARIANTS[variant])
    for updates in (1, 6, 1):
        _learn(parts, updates)
        training = _assert_resumes(parts)
        parts = parts._replace(training=training)


@pytest.mark.parametrize("missing", ["parameters", "optimizer/first_moment"])
def test_the_test_sees_a_state_that_lacks_a_tensor(tmp_path, monkeypatch, missing):
    kind = worker_builders.learner.Learner
    whole = kind.state_tensors.fget
    lacking = property(lambda self: {**whole(self), missing: torch.zeros(8)})
    monkeypatch.setattr(kind, "state_tensors", lacking)
    parts = _parts(tmp_path, **_VARIANTS["adam"])
    _learn(parts, 2)
    with pytest.raises(AssertionError, match="state.learner"):
        _assert_resumes(parts)


@pytest.mark.parametrize("variant", ["impala", "impact", "popart", "adam"])
def test_the_next_update_is_that_of_a_learner_that_was_never_killed(tmp_path, variant):
    parts = _parts(tmp_path, **_VARIANTS[variant])
    _learn(parts, 5)
    training = _successor(parts)
    policy = training._learner.agent
    batch = builders.random_batch(
        parts.shared.config, parts.shared.environment, policy, seed=3
    )
    live = learner_state.learner.base.Live(
        *map(parts.shared.control.get, learner_state.learner.base.Live._fields)
    )
    state = torch.get_rng_state()
    for each in (parts.training, training):
        torch.set_rng_state(state)
        each._learner.update(batch, live)
    first, second = (t._learner.state_dict() for t in (parts.training, training))
    lockstep_runs.assert_same(second, first)


def test_the_state_of_many_games_is_kept(tmp_path):
    """The games of several tasks, with the user's numbers, fit into the memory."""
    parts = _parts(tmp_path, **_VARIANTS["tasks"])
    _learn(parts)
    training = parts.training
    names = [f"{i:03}" + 253 * "\x01" for i in range(32)]
    training._games._games.add_names(names)
    rng = np.random.default_rng(0)
    for groups in training._games._statistics._games():
        groups.last.extend((float(x), i) for i, x in enumerate(rng.normal(size=100)))
        groups.count = 10**15
        for name in names:
            groups.number(name).extend(rng.normal(size=100).tolist())
    training._stop.look(*training._moment()[1:], training._games.return_mean())
    training._copy.look(training._flushed_numbers)
    _assert_resumes(parts)


def test_it_is_not_used_where_the_checkpoint_is_as_new(tmp_path):
    parts = _parts(tmp_path)
    _learn(parts, 3)
    parts.training.save()
    said = []
    assert _successor(parts, said)._learner.updates == 3
    assert said == []
    _learn(parts, 1)
    _successor(parts, said)
    (sentence,) = said
    assert sentence.endswith("memory. The newest checkpoint is of update 3.")


def _changed(memory):
    memory._buffers[memory.latest % 2][100] ^= 1


def _half_written(memory):
    memory._words[8 * (1 + memory.latest % 2)] = 0


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_changed, "the checksum of version 5 does not match"),
        (_half_written, "the words of version 5 do not match"),
    ],
)
def test_without_a_whole_state_the_checkpoint_counts(tmp_path, damage, why):
    parts = _parts(tmp_path)
    _learn(parts, 3)
    parts.training.save()
    saved = _state(parts.training)
    _learn(parts, 2)
    damage(parts.shared.learner_memory)
    said = []
    training = _successor(parts, said)
    assert said == [
        f"The learner's state in shared memory is not used: {why}. The newest"
        " checkpoint is of update 3."
    ]
    lockstep_runs.assert_same(_state(training), saved)
    # The run has continued from another state: the lost one must not come back.
    said.clear()
    assert _successor(parts, said)._learner.updates == 3
    assert said == []
    _learn(parts, 1, training)
    assert _successor(parts)._learner.updates == 4


def test_a_state_that_no_learner_gets_past_is_given_up(tmp_path):
    parts = _parts(tmp_path)
    _learn(parts, 2)
    parts.training.save()
    _learn(parts, 2)
    said = []
    updates = [_successor(parts, said)._learner.updates for _ in range(5)]
    assert updates == [4, 4, 4, 2, 2]
    assert "3 learners have resumed from it and ended" in said[-1]
    parts = _parts(tmp_path / "other")
    for _ in range(5):  # each makes progress
        _learn(parts, 1)
        parts = parts._replace(training=_successor(parts))
    assert parts.training._learner.updates == 5


class _Killed(Exception):
    pass


def _kill(*unused):
    raise _Killed


# Places in a step, and the updates of which the successor knows.
_PLACES = {
    "before the update": (lambda t: (t._learner, "update"), 3),
    "after the update": (lambda t: (t._games, "add"), 3),
    "before it is counted": (lambda t: (t._accounts, "learned"), 3),
    "before the publication": (lambda t: (t, "publish"), 3),
    "before the write": (lambda t: (t._copy, "look"), 3),
    "in the write": (lambda t: (t._copy._memory, "_fill"), 3),
    "after the write": (lambda t: (t.row, "add"), 4),
}


@pytest.mark.parametrize("place", _PLACES)
def test_the_accounts_balance_wherever_the_learner_is_killed(
    tmp_path, monkeypatch, place
):
    parts = _parts(tmp_path)
    _learn(parts, 3)
    builders.act(parts)
    where, expected = _PLACES[place]
    with monkeypatch.context() as patch:
        owner, name = where(parts.training)
        if name == "add" and owner is parts.training.row:
            add = owner.add
            patch.setattr(
                owner, name, lambda n, v: _kill() if n == "finished" else add(n, v)
            )
        else:
            patch.setattr(owner, name, _kill)
        with pytest.raises(_Killed):
            parts.training.step()
    training = _successor(parts)
    assert training._learner.updates == expected
    counts = training._accounts.counts()
    assert counts["committed"] == sum(list(counts.values())[1:]) == 24
    assert counts["learned"] in (18, 24)
    _learn(parts, 1, training)
    training._accounts.counts()


def test_the_rows_of_games_are_those_of_the_restored_update(tmp_path):
    parts = _parts(tmp_path, **{"environment.id": "CartPole-v1"})
    _learn(parts, 20)
    rows = (tmp_path / "episodes.csv").read_text().splitlines()
    state = parts.training._games.state_dict()
    assert len(rows) == 1 + state["rows"] > 10  # all are in the file
    parts.training._copy.look = lambda numbers: None
    while parts.training._games.state_dict()["rows"] < state["rows"] + 5:
        _learn(parts, 1)  # lost
    parts.training._games.flush()
    training = _successor(parts)
    assert training._learner.updates == 20
    assert (tmp_path / "episodes.csv").read_text().splitlines() == rows
    assert training._games.state_dict() == state
    assert len(episodes.read(str(tmp_path))["return"]) == state["rows"]


def test_the_replay_comes_from_the_checkpoint(tmp_path, monkeypatch):
    variant = {**_VARIANTS["dqn"], "replay.save": True}
    parts = _parts(tmp_path, **variant)
    _learn(parts, 3)
    parts.training.save()
    size = parts.training._replay.size
    assert size > 0
    _learn(parts, 2)
    training = _successor(parts)
    assert training._learner.updates == 5
    assert training._replay.size == size
    assert isinstance(training._replay, replay.Replay)
    _learn(parts, 2, training)


class _Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("write_secs", "update_secs", "expected"),
    [(0.001, 0.2, 1), (0.001, 0.034, 3), (0.1, 1.02, 10), (0.0, 0.001, 1)],
)
def test_writes_take_a_hundredth_of_the_time(
    tmp_path, monkeypatch, write_secs, update_secs, expected
):
    monkeypatch.setattr(learner_state, "_SHARE", 0.01)
    parts, clock, looks, written = _parts(tmp_path), _Clock(), [], []
    copy, memory = parts.training._copy, parts.shared.learner_memory
    monkeypatch.setattr(copy, "_clock", clock)

    def write(pieces):
        pause = 5.0 if len(written) == 4 else 0.0  # of the whole machine
        clock.now += write_secs + pause
        written.append(len(looks))

    monkeypatch.setattr(memory, "write", write)
    while len(looks) < 100:
        looks.append(clock.now)
        clock.now += update_secs
        copy.look(parts.training._flushed_numbers)
    assert {b - a for a, b in zip(written[:-1], written[1:], strict=True)} == {expected}
    assert written[0] == 1


class _OnItsWay:
    """A copy from a GPU, which takes the values of the moment it begins."""

    def __init__(self, tensor):
        self._values = tensor.clone()

    def read(self):
        return self._values


def test_from_a_gpu_a_state_is_written_at_the_next_look(tmp_path, monkeypatch):
    parts = _parts(tmp_path)
    monkeypatch.setattr(learner_state.cuda, "HostCopy", _OnItsWay)
    copy = parts.training._copy
    copy._on_cpu = False
    _learn(parts, 1)
    assert parts.shared.learner_memory.latest == 0
    before = _state(parts.training)
    _learn(parts, 1)
    assert parts.shared.learner_memory.latest == 1
    lockstep_runs.assert_same(_state(_successor(parts)), before)


def test_a_look_does_not_wait_for_a_gpu(tmp_path, monkeypatch):
    parts = _parts(tmp_path)
    _learn(parts, 1)
    monkeypatch.setattr(learner_state.cuda, "HostCopy", _OnItsWay)
    copy = parts.training._copy
    copy._on_cpu = False

    def wait(tensor):
        raise AssertionError("it waits for the device")

    for name in ("item", "tolist", "cpu", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, wait)
    copy.look(parts.training._flushed_numbers)
    assert copy._pending


def test_updates_that_were_skipped_since_a_record_are_counted(tmp_path):
    parts = _parts(tmp_path)

    def spoil():
        for i, one in enumerate(parts.actors):
            one.fetch()
            one.unroll()
            parts.shared.rings.ring(i).peek(0).time_step.reward[3, 2] = np.nan
        parts.training.step()

    _learn(parts, 2)
    for _ in range(2):  # a record between them
        spoil()
        parts.training.write_record()
    spoil()
    assert parts.training.updates.num_skipped == 3
    assert parts.training.updates.skipped_before == 2
    training = _successor(parts)
    assert training.updates.num_skipped == training.updates.skipped_before == 3
    assert training.updates.skipped.item() == 0


def test_without_processes_there_is_no_memory(tmp_path):
    parts = _parts(tmp_path, **{"runtime.mode": "lockstep"})
    _learn(parts, 3)
    assert parts.shared.learner_memory.num_bytes == 0
    assert parts.shared.learner_memory.latest == 0


def test_a_delay_line_without_delay_has_no_tensors():
    assert publisher.DelayLine(torch.zeros(8), 0).tensors == []
    assert learner_memory.aligned(9) == 16
