"""Frame stacks in a replay, byte for byte against stacks that were kept whole."""

import collections
import types as python_types

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies

from impala_mp import nest, seeding, specs, types
from impala_mp.algorithms import leaf_storage, replay
from impala_mp.config import derived
from impala_mp.environments import factory
from tests.support import builders


def _stacks(rng, rows, picture, size, colours, resets):
    """Rows of one game, each from a queue of its pictures: [rows, *picture, P * C].

    At a reset the oldest pictures turn 0: all older ones, or all but one, as in old
    versions of ale-py.
    """

    def new():  # few values: pictures repeat, and some are 0
        return rng.integers(0, 2, (*picture, colours), np.uint8)

    queue, found = collections.deque([new() for _ in range(size)], size), []
    for _ in range(rows):
        queue.append(new())
        if rng.random() < resets:
            for place in range(int(rng.integers(1, size))):
                queue[place] = np.zeros_like(queue[place])
        found.append(np.concatenate(queue, axis=-1))
    return np.stack(found)


def _leaf(shape, size):
    return specs.array_spec(shape, np.uint8, stack_size=size)


@hypothesis.given(
    seed=strategies.integers(0, 2**32 - 1),
    rows=strategies.integers(2, 9),
    picture=strategies.sampled_from([(1, 1), (2, 3), (7,), (4, 5)]),
    size=strategies.integers(2, 5),
    colours=strategies.integers(1, 3),
    resets=strategies.sampled_from([0.0, 0.2, 0.9]),
)
@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
def test_stacks_are_read_as_they_were_written(
    seed, rows, picture, size, colours, resets
):
    rng = np.random.default_rng(seed)
    capacity, written = 5, {}
    stored = leaf_storage.make(_leaf((rows, *picture, size * colours), size), capacity)
    for _ in range(3):
        # Slots and batches have time first, and the replay reads some columns of them.
        places = rng.permutation(capacity)[:3]
        games = [_stacks(rng, rows, picture, size, colours, resets) for _ in places]
        slot = np.stack(games, axis=1)
        stored.put(places, np.moveaxis(slot, 1, 0))
        written.update(zip(places.tolist(), games, strict=True))
        drawn = rng.choice(list(written), 4)
        expected = np.stack([written[place] for place in drawn.tolist()], axis=1)
        batch = rng.integers(0, 256, (rows, 6, *expected.shape[2:]), np.uint8)
        before = batch[:, :2].copy()
        stored.get(drawn, np.moveaxis(batch, 1, 0)[2:])
        np.testing.assert_array_equal(batch[:, 2:], expected)
        np.testing.assert_array_equal(batch[:, :2], before)
        first = np.moveaxis(batch, 1, 0)[2:, : rows - 1]
        first[...] = 99
        stored.get(drawn, first)
        np.testing.assert_array_equal(batch[:, 2:], expected)


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_a_row_that_is_no_stack_is_refused(plane):
    rng = np.random.default_rng(0)
    stored = leaf_storage.make(_leaf((5, 3, 3, 4), 4), 1)
    row = _stacks(rng, 5, (3, 3), 4, 1, 0.0)
    stored.put(np.array([0]), row[None])
    other = row.copy()
    other[2, 1, 1, plane] ^= 7
    with pytest.raises(ValueError, match=r"Row [23] .* no stack of 4 pictures.*1"):
        stored.put(np.array([0]), other[None])
    read = np.empty_like(row[None])
    stored.get(np.array([0]), read)
    np.testing.assert_array_equal(read[0], row)


def test_a_leaf_without_stack_is_stored_whole():
    leaf = specs.array_spec((5, 3, 4), np.float32)
    stored = leaf_storage.make(leaf, 6)
    assert leaf_storage.layout(leaf) == [leaf]
    assert [array.shape for array in stored.arrays] == [(6, 5, 3, 4)]
    assert stored.arrays[0].dtype == np.float32


# A replay of real games.


def _replay(spec, capacity, num_replayed, eviction="fifo", seed=0):
    settings = python_types.SimpleNamespace(
        eviction=eviction, priority_exponent=0.6, importance_exponent=0.4
    )
    node = seeding.sequence(seed, "replay")
    return replay.Replay(spec, capacity, num_replayed, 3.0, settings, node)


def _spec(environment, rows, size):
    output = specs.actor_critic_output(environment.action, 4)
    return specs.trajectory_spec(environment, output, (), rows, size)


def _zeros(environment, rows, size):
    spec = _spec(environment, rows, size)
    return nest.map_structure(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)


class _Games:
    """Slots of three copies of Breakout, cut off after 40 agent steps.

    `lost` and `reset` are numbers of lives and games that ended within a slot.
    """

    def __init__(self, rows, **kwargs):
        settings = builders.environment_settings(
            "ALE/Breakout-v5",
            episodic_life=True,
            max_num_frames_per_episode=160,
            **kwargs,
        )
        self._environment = factory.make(settings, 3)
        self.spec, self._rows = self._environment.spec, rows
        self._rng = np.random.default_rng(0)
        self._last = nest.map_structure(np.copy, self._environment.reset(range(3)))
        self.lost = self.reset = 0

    def slot(self, into):
        """Plays one unroll into the first columns of the batch `into`."""
        for row in range(self._rows + 1):
            if row:
                action = self._rng.integers(0, 4, 3)
                step, end = self._environment.step(action)
                self._last = nest.map_structure(np.copy, step)
                over = ~np.isnan(end.episode_return)
                ended = (step.step_type == types.StepType.LAST) & (row < self._rows)
                self.reset += int((ended & over).sum())
                self.lost += int((ended & ~over).sum())
            for target, source in zip(
                nest.flatten(into.time_step), nest.flatten(self._last), strict=True
            ):
                target[row, :3] = source

    def close(self):
        self._environment.close()


@pytest.mark.integration
@pytest.mark.parametrize("eviction", ["fifo", "priority"])
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"grayscale": False, "stack_num": 3}, {"stack_num": 1}],
    ids=["grey", "colour", "single"],
)
def test_games_are_drawn_as_they_were_played(eviction, kwargs, tmp_path):
    rows, games = 6, _Games(6, img_height=30, img_width=20, **kwargs)
    spec = _spec(games.spec, rows, 8)
    made, played = _replay(spec, 10, 5, eviction), {}
    rng = np.random.default_rng(1)
    for number in range(30):
        batch, sample = _zeros(games.spec, rows, 8), types.Sample(*np.zeros((2, 8)))
        games.slot(batch)
        fresh = nest.map_structure(np.copy, batch.time_step)
        draw = made.fill(batch, sample)
        for column, serial in enumerate(draw.serials[:3].tolist()):
            played[serial] = [leaf[:, column] for leaf in nest.flatten(fresh)]
        for column, serial in enumerate(draw.serials.tolist()):
            for leaf, expected in zip(
                nest.flatten(batch.time_step), played[serial], strict=True
            ):
                np.testing.assert_array_equal(leaf[:, column], expected)
        made.update(draw, rng.random(8).astype(np.float32))
        if number == 15:  # as after a resume
            torch.save(made.state_dict(), tmp_path / "state.pt")
            made = _replay(spec, 10, 5, eviction, seed=1)
            made.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    games.close()
    assert games.reset >= 5
    assert games.lost >= 5


def _of_pictures(stack_size):
    picture = specs.array_spec((6, 5, 4), np.uint8, stack_size=stack_size)
    return specs.EnvironmentSpec(picture, specs.DiscreteSpec(2), 4)


def test_a_checkpoint_with_whole_stacks_is_read():
    rows, rng = 5, np.random.default_rng(0)
    old, new = (_replay(_spec(_of_pictures(n), rows, 1), 10, 3) for n in (1, 4))
    for _ in range(5):
        batch = _zeros(_of_pictures(4), rows, 3)
        for column in range(3):
            stacks = _stacks(rng, rows + 1, (6, 5), 4, 1, 0.3)
            batch.time_step.observation[:, column] = stacks
        old.insert(batch, 3)
    state = old.state_dict()
    state["arrays"] = [array for (array,) in state["arrays"]]  # as it was saved
    new.load_state_dict(state)
    for _ in range(5):
        batches = [_zeros(_of_pictures(4), rows, 3) for _ in range(2)]
        for made, batch in zip((old, new), batches, strict=True):
            made.fill(batch, types.Sample(*np.zeros((2, 3))))
        for a, b in zip(*map(nest.flatten, batches), strict=True):
            np.testing.assert_array_equal(a, b)
        assert batches[0].time_step.observation.any()


def test_rows_before_a_draw_are_those_of_its_predecessor():
    rows, rng = 5, np.random.default_rng(0)
    output = specs.actor_critic_output(specs.DiscreteSpec(2), 4)
    spec = specs.trajectory_spec(
        _of_pictures(4), output, (), rows, 4, num_predecessors=3
    )
    made, found = _replay(spec, 10, 3), 0
    game = _stacks(rng, 1 + 6 * rows, (6, 5), 4, 1, 0.3)
    for unroll in range(6):
        batch = nest.map_structure(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)
        start = unroll * rows
        batch.time_step.observation[:, 0] = game[start : start + rows + 1]
        batch.header.unroll[0] = unroll
        made.fill(batch, types.Sample(*np.zeros((2, 4))))
        for column in (1, 2, 3):
            drawn = int(batch.header.unroll[column])
            assert batch.before.there[column - 1] == (drawn > 0)
            if drawn:
                before = batch.before.time_step.observation[:, column - 1]
                expected = game[(drawn - 1) * rows : drawn * rows]
                np.testing.assert_array_equal(before, expected)
                found += 1
    assert found >= 5


def _atari(stack_size):
    picture = specs.array_spec((84, 84, 4), np.uint8, stack_size=stack_size)
    return specs.EnvironmentSpec(picture, specs.DiscreteSpec(18), 4)


@pytest.mark.parametrize(("rows", "gigabytes"), [(20, 8.6), (40, 7.9), (80, 7.6)])
def test_a_million_transitions_of_atari_in_8_gib(rows, gigabytes):
    output = specs.actor_critic_output(specs.DiscreteSpec(18), 18)
    found, whole = (
        replay.trajectory_bytes(
            specs.trajectory_spec(_atari(size), output, (), rows, 32)
        )
        for size in (4, 1)
    )
    config = builders.impala_config(**{"replay.memory_mib": 8192.0})
    assert derived.replay_capacity(config, found) * rows >= 1_000_000
    assert found / rows * 1e6 <= gigabytes * 1e9
    pictures = (4 * (rows + 1) - (rows + 4)) * 84 * 84
    assert whole - found == pictures - rows * 4
