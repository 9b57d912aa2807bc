"""Replay against a list, over random operations; draws by a chi-square test."""

import types as python_types

import numpy as np
import pytest
import torch

from impala_mp import nest, seeding, specs, types
from impala_mp.algorithms import replay

_ENVIRONMENT = specs.EnvironmentSpec(
    specs.array_spec((3,), np.float32), specs.DiscreteSpec(2), 1
)
_CORE = (specs.array_spec((2,), np.float32),)


def _spec(size):
    output = specs.actor_critic_output(_ENVIRONMENT.action, 2)
    return specs.trajectory_spec(_ENVIRONMENT, output, _CORE, 4, size)


def _settings(**changes):
    settings = {
        "eviction": "fifo",
        "priority_exponent": 0.0,
        "importance_exponent": 0.4,
    }
    return python_types.SimpleNamespace(**{**settings, **changes})


def _make(capacity=10, num_replayed=2, seed=0, **changes):
    node = seeding.sequence(seed, "replay")
    return replay.Replay(
        _spec(1), capacity, num_replayed, 2.0, _settings(**changes), node
    )


def _batch(numbers, size):
    """Trajectory b is full of numbers[b]; the columns beyond are -1."""
    batch = nest.map_structure(
        lambda leaf: np.full(leaf.shape, 99, leaf.dtype), _spec(size)
    )
    padded = np.array([*numbers, *[99] * (size - len(numbers))])
    for axis, field in zip(types.BATCH_AXIS, batch, strict=True):
        for leaf in nest.flatten(field):
            np.moveaxis(leaf, axis, -1)[...] = padded
    return batch


def _sample(size):
    return types.Sample(*np.full((2, size), np.nan, np.float32))


class _List:
    """The naive twin: entries [serial, priority], the oldest first."""

    def __init__(self, capacity, eviction, alpha):
        self.entries, self.count = [], 0
        self._capacity, self._eviction, self._alpha = capacity, eviction, alpha

    def insert(self, count):
        # Room is made first, and the priority is the largest of those before.
        highest = max((p for _, p in self.entries), default=0.0) or 1.0
        while len(self.entries) > self._capacity - count:
            by = (lambda e: e[0]) if self._eviction == "fifo" else (lambda e: e[::-1])
            self.entries.remove(min(self.entries, key=by))
        for _ in range(count):
            self.entries.append([self.count, highest])
            self.count += 1

    def update(self, serials, priorities):
        for serial, priority in zip(serials, priorities, strict=True):
            for entry in self.entries:
                if entry[0] == serial:
                    kept = np.isfinite(priority)
                    entry[1] = float(priority) + 1e-6 if kept else 0.0

    def chance(self, serial):
        weights = {s: p**self._alpha for s, p in self.entries if p > 0.0}
        return weights[serial] / sum(weights.values())


def _check_same(made, twin):
    there = {
        int(serial): float(priority)
        for serial, priority in zip(made._serials, made._priorities, strict=True)
        if serial >= 0
    }
    assert there == dict(map(tuple, twin.entries))
    assert made.size == sum(priority > 0.0 for _, priority in twin.entries)


@pytest.mark.parametrize("eviction", ["fifo", "priority"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_it_equals_a_list_over_random_operations(eviction, alpha):
    made = _make(eviction=eviction, priority_exponent=alpha, num_replayed=3)
    twin, rng = _List(10, eviction, alpha), np.random.default_rng(0)
    draws = []
    for _ in range(200):
        fresh = int(rng.integers(1, 5))
        batch = _batch(twin.count + np.arange(fresh), fresh + 3)
        sample = _sample(fresh + 3)
        made.anneal(rng.random() * 1.2)
        beta = made.importance_exponent
        draw = made.fill(batch, sample)
        twin.insert(fresh)
        _check_same(made, twin)
        # The whole trajectory is the one that was inserted as this number.
        expected = _batch(draw.serials, fresh + 3)._replace(episode_end=())
        actual = batch._replace(episode_end=())
        for a, b in zip(nest.flatten(actual), nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(a, b)
        chances = np.array([twin.chance(serial) for serial in draw.serials[fresh:]])
        weights = (1.0 / (len(twin.entries) * chances)) ** beta
        weights = np.concatenate([np.ones(fresh), weights / weights.max()])
        np.testing.assert_allclose(sample.weight, weights, rtol=1e-5)
        assert sample.replayed.tolist() == [0.0] * fresh + [1.0] * 3
        draws = [*draws[-4:], draw]
        late = draws[rng.integers(len(draws))]  # of trajectories that may be gone
        errors = (rng.random(len(late.serials)) * 10.0).astype(np.float32)
        errors[rng.random(len(errors)) < 0.1] = np.nan
        made.update(late, errors)
        twin.update(late.serials, errors)
        _check_same(made, twin)


def _chi_square(counts, expected):
    """The statistic in standard deviations of a normal variable (Wilson, Hilferty)."""
    degrees = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    spread = 2.0 / (9.0 * degrees)
    return ((statistic / degrees) ** (1.0 / 3.0) - (1.0 - spread)) / spread**0.5


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_the_distribution_of_draws(alpha):
    made = _make(capacity=40, priority_exponent=alpha)
    priorities = np.linspace(0.1, 4.0, 40).astype(np.float32)
    priorities[[3, 17]] = np.nan  # removed: never drawn
    made.update(made.insert(_batch(range(40), 40), 40), priorities)
    counts = np.zeros(40)
    for _ in range(200):
        np.add.at(counts, made.sample(200)[0].serials, 1)
    assert counts[3] == counts[17] == 0
    kept = np.isfinite(priorities)
    chances = priorities[kept].astype(float) ** alpha
    expected = chances / chances.sum() * counts.sum()
    assert abs(_chi_square(counts[kept], expected)) < 3.0
    other = np.roll(expected, 1) if alpha else expected * np.linspace(0.9, 1.1, 38)
    assert _chi_square(counts[kept], other) > 3.0  # the test can tell


def test_importance_weights_by_hand():
    made = _make(capacity=4, priority_exponent=1.0)
    made.update(made.insert(_batch(range(4), 4), 4), np.float32([1, 1, 2, 4]))
    made.anneal(0.5)
    assert made.importance_exponent == pytest.approx(0.7)
    draw, weights = made.sample(1000)
    by_serial = dict(zip(draw.serials.tolist(), weights.tolist(), strict=True))
    # (1 / (4 * P)) ** 0.7 with P = 1/8, 1/8, 2/8, 4/8, over the largest.
    expected = {0: 1.0, 1: 1.0, 2: 0.5**0.7, 3: 0.25**0.7}
    assert by_serial == pytest.approx(expected, rel=1e-5)
    made.anneal(7.0)
    assert made.importance_exponent == 1.0


def test_the_metrics():
    made = _make(capacity=4, num_replayed=3, priority_exponent=1.0)
    draw = made.fill(_batch([0, 1], 5), _sample(5))
    made.update(draw, np.float32([2, 4, *np.choose(draw.serials[2:], [2, 4])]))
    values = made.metrics()
    assert values["replay/size"] == 2
    assert values["replay/priority_mean"] == pytest.approx(3.0, abs=1e-5)
    assert 0.5 <= values["replay/age_mean_updates"] <= 1.0  # inserted just now
    assert values["replay/weight_mean"] == 1.0
    assert np.isnan(made.metrics()["replay/weight_mean"])  # nothing drawn since


@pytest.mark.parametrize("eviction", ["fifo", "priority"])
@pytest.mark.parametrize("inserted", [3, 25])
def test_a_round_trip_resumes_bit_for_bit(eviction, inserted, tmp_path):
    def turn(made, number):
        batch, sample = _batch([number, number + 1], 4), _sample(4)
        draw = made.fill(batch, sample)
        errors = np.random.default_rng(number).random(4).astype(np.float32)
        made.update(draw, errors)
        return nest.flatten([batch, sample, draw])

    made = _make(eviction=eviction, priority_exponent=0.6)
    for number in range(inserted):
        turn(made, number)
    torch.save(made.state_dict(), tmp_path / "state.pt")
    other = _make(eviction=eviction, priority_exponent=0.6, seed=1)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    np.testing.assert_array_equal(made._tree._nodes, other._tree._nodes)
    for number in range(inserted, inserted + 30):
        for a, b in zip(turn(made, number), turn(other, number), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_size_of_a_trajectory():
    kept = _spec(1)._replace(episode_end=())
    expected = sum(leaf.nbytes for leaf in nest.flatten(kept))
    found = replay.trajectory_bytes(_spec(1))
    assert found > expected
    made = _make(capacity=1000)
    stored = [array for leaf in made._leaves for array in leaf.arrays]
    arrays = [*stored, made._priorities, made._serials, made._tree._nodes]
    assert sum(array.nbytes for array in arrays) <= 1000 * found


def test_priorities_of_a_cpu_are_there_at_once():
    made = _make(priority_exponent=1.0)
    draw = made.insert(_batch([0, 1], 2), 2)
    replay.Refresher(made).add(draw, torch.tensor([3.0, np.nan]))
    assert made.size == 1
    assert made.sample(5)[0].serials.tolist() == [0] * 5


def _spec_with_before(size, num_predecessors=3):
    output = specs.actor_critic_output(_ENVIRONMENT.action, 2)
    return specs.trajectory_spec(
        _ENVIRONMENT, output, _CORE, 4, size, num_predecessors=num_predecessors
    )


class _Actors:
    """Slots of two columns by some actors, which lose unrolls, die and start over."""

    def __init__(self, rng):
        self.rng, self.acted = rng, 0
        self._unrolls = [0, 0, 0]
        self.told = {}  # by (actor, column, unroll): its number

    def slots(self, count):
        """Returns a batch whose first columns are `count` slots."""
        numbers, header = [], []
        for _ in range(count):
            actor = int(self.rng.integers(3))
            step = self.rng.choice([1, 2, 1 << 32], p=[0.8, 0.1, 0.1])
            self._unrolls[actor] += int(step)
            for column in (0, 1):
                key = (actor, column, self._unrolls[actor])
                self.told[key] = self.acted
                numbers.append(self.acted)
                header.append(key)
                self.acted += 1
        size = len(numbers) + 3
        batch = nest.map_structure(
            lambda leaf: np.full(leaf.shape, 99, leaf.dtype), _spec_with_before(size)
        )
        padded = np.array([*numbers, *[99] * 3])

        def fill(axis, leaf):
            np.moveaxis(leaf, axis, -1)[...] = padded

        nest.map_batch(fill, batch._replace(before=()))
        for words, values in zip(
            (batch.header.actor, batch.header.column, batch.header.unroll),
            zip(*header, strict=True),
            strict=True,
        ):
            words[: len(numbers)] = values
        return batch, len(numbers)


@pytest.mark.parametrize("eviction", ["fifo", "priority"])
@pytest.mark.parametrize("resumes", [False, True])
def test_the_predecessor_is_the_one_acted_directly_before(eviction, resumes):
    """Against a table of all trajectories by actor, column and unroll."""
    rng = np.random.default_rng(3)
    actors, found, gone = _Actors(rng), 0, 0
    settings = _settings(eviction=eviction)

    def make():
        node = seeding.sequence(0, "replay")
        return replay.Replay(_spec_with_before(1), 20, 3, 2.0, settings, node)

    made = make()
    for _ in range(200):
        batch, fresh = actors.slots(int(rng.integers(1, 4)))
        draw = made.fill(batch, _sample(fresh + 3))
        for column in range(fresh, fresh + 3):
            header = batch.header
            number = batch.time_step.reward[0, column]
            key = [int(w[column]) for w in (header.actor, header.column, header.unroll)]
            assert actors.told[tuple(key)] == number
            before = actors.told.get((*key[:2], key[2] - 1))
            there = before is not None and (made._serials == before).any()
            if there and not made._priorities[made._serials == before].item():
                there = False
            gone += before is not None and not there
            found += there
            assert batch.before.there[column - fresh] == there
            if there:
                for leaf in nest.flatten(batch.before._replace(there=())):
                    axis = 0 if leaf.ndim == 2 and leaf.shape[1:] == (2,) else 1
                    row = np.moveaxis(leaf, axis, 0)[column - fresh]
                    assert (row == np.array(before).astype(leaf.dtype)).all()
        priorities = rng.random(len(draw.serials)).astype(np.float32)
        priorities[rng.random(len(priorities)) < 0.05] = np.nan
        made.update(draw, priorities)
        if resumes and rng.random() < 0.2:
            state = made.state_dict()
            made = make()
            made.load_state_dict(state)
    assert found > 100
    assert gone > 20


@pytest.mark.parametrize("eviction", ["fifo", "priority"])
def test_a_fuller_replay_of_an_older_version_leaves_its_newest(eviction):
    """Older versions stored fewer bytes a trajectory, and so more of them."""
    old, made = (_make(capacity=n, eviction=eviction) for n in (10, 7))
    rng = np.random.default_rng(0)
    for number in range(0, 24, 2):
        draw = old.insert(_batch([number, number + 1], 2), 2)
        old.update(draw, rng.random(2).astype(np.float32))
    kept = np.sort(old._serials)[-7:]
    priority_of = dict(zip(old._serials.tolist(), old._priorities, strict=True))
    made.load_state_dict(old.state_dict())
    assert np.sort(made._serials).tolist() == kept.tolist()
    for place, serial in enumerate(made._serials.tolist()):
        assert made._priorities[place] == priority_of[serial]
    for number in range(24, 40):
        batch = _batch([number], 3)
        draw = made.fill(batch, _sample(3))
        assert batch.time_step.reward[0].tolist() == draw.serials.tolist()
    if eviction == "fifo":
        assert np.sort(made._serials).tolist() == list(range(33, 40))


@pytest.mark.parametrize("at_once", [False, True])
def test_priorities_of_a_gpu_come_late_unless_they_are_waited_for(monkeypatch, at_once):
    updates = []
    listener = python_types.SimpleNamespace(update=lambda draw, _: updates.append(draw))
    arrived = python_types.SimpleNamespace(read=lambda: torch.zeros(2))
    monkeypatch.setattr(replay.cuda, "HostCopy", lambda tensor: arrived)
    made = replay.Refresher(listener, at_once)
    for draw in (1, 2):
        made.add(draw, python_types.SimpleNamespace(is_cuda=True))
    assert updates == [1, 2][: 1 + at_once]
