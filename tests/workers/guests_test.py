"""Guests of an actor: a game ends with the opponent that it began with."""

import numpy as np
import pytest
import torch

from impala_mp import config as config_lib, nest, types
from impala_mp.environments import league_games
from impala_mp.networks import flat_parameters
from impala_mp.transport import league_memory
from impala_mp.workers import builders as worker_builders, guests
from tests.support import builders, skirmish

LAST = 2


class _Agent:
    """A policy whose every action is its only parameter."""

    def __init__(self, memory=0):
        self.network = torch.nn.Linear(1, 1, bias=False)
        self._memory = memory

    def initial_state(self, count):
        return (torch.zeros(count, 1),) * self._memory

    def step(self, time_step, state, **settings):
        count = len(time_step.step_type)
        action = torch.full((count,), int(self.network.weight.item()))
        first = (time_step.step_type == 0).unsqueeze(1)
        state = tuple(torch.where(first, 0.0, leaf) + 1.0 for leaf in state)
        return types.AgentOutput(action, None, None), state


def _flat(version):
    agent = _Agent()
    torch.nn.init.constant_(agent.network.weight, float(version))
    return flat_parameters.FlatParameters(agent.network).flat.numpy()


class _Live:
    def get(self, name):
        return {"epsilon": 0.0, "temperature": 1.0}[name]


def _make(memory, columns=24, has_state=0, seed=0):
    config = config_lib.get_base_config()
    config.environment.id = f"{skirmish.__name__}:Skirmish"
    config.actors.environments = columns
    config.league.every = 1
    environment = league_games.make(config, columns, 0)
    made = guests.Guests(
        (_Agent(has_state), _Agent(has_state)),
        memory,
        environment,
        _Live(),
        [1.0] * columns,
        5,
        torch.Generator().manual_seed(seed),
    )
    return environment, made


def _memory(versions=(1, 2, 3, 4)):
    memory = league_memory.LeagueMemory(len(versions), _flat(1).nbytes)
    for slot, version in enumerate(versions):
        memory.write(slot, version, _flat(version))
        memory.weigh(slot, 0.25)
    return memory


def _columns_of_games(environment):
    return np.repeat(np.arange(environment.num_with_guests), environment.guests_a_game)


def _play(environment, made, steps, each=lambda step: None):
    """[(acted, versions that acted by column, opponents, results)] of each step."""
    time_step = environment.reset(list(range(environment.num_envs)))
    made.reset(environment.split(time_step)[1])
    made.fetch(None)
    generator, found = torch.Generator(), []
    for step in range(steps):
        each(step)
        theirs = made.act(0, generator).copy()
        acts = environment.split(time_step)[1].acts
        opponents = environment.opponents.copy()
        ours = np.zeros(environment.num_envs, np.int64)
        time_step, end = environment.step((ours, theirs))
        parts = environment.split(time_step)
        made.note(0, parts[1], environment.split_end(end)[1])
        found.append((acts, theirs, opponents, end.game, environment.begun.copy()))
    return found


@pytest.mark.parametrize("has_state", [0, 1])
def test_a_game_ends_with_the_opponent_that_it_began_with(has_state):
    environment, made = _make(_memory(), has_state=has_state)
    games = _columns_of_games(environment)
    current = np.zeros(environment.num_with_guests, np.int64)
    met, at_once = set(), 0
    for acts, theirs, opponents, game, begun in _play(environment, made, 400):
        for column in np.flatnonzero(acts):
            mine = games[column]
            assert theirs[column] == opponents[mine]
            current[mine] = current[mine] or theirs[column]
            assert current[mine] == theirs[column], "the opponent changed in a game"
        results = np.flatnonzero(~np.isnan(game.result))
        for column in results:
            mine = (column - environment._alone.size) // environment.side_size
            assert game.opponent[column] == current[mine]
            met.add(int(current[mine]))
        at_once = max(at_once, len(set(opponents.tolist())))
        current[begun] = 0
    assert met == {1, 2, 3, 4}
    assert at_once == 2


def test_snapshots_are_drawn_by_their_weights():
    memory = _memory()
    for slot, weight in enumerate((0.7, 0.0, 0.3, 0.0)):
        memory.weigh(slot, weight)
    _, made = _make(memory)
    drawn = [made._choose(memory.entries()).version for _ in range(2000)]
    counts = [drawn.count(version) for version in (1, 2, 3, 4)]
    assert counts[1] == counts[3] == 0
    assert counts[0] / 2000 == pytest.approx(0.7, abs=0.04)


def test_a_snapshot_that_leaves_ends_its_games():
    memory = _memory((1,))
    environment, made = _make(memory)

    def replace(step):
        if step == 2:
            memory.write(0, 9, _flat(9))
            memory.weigh(0, 1.0)

    seen = _play(environment, made, 60, replace)
    assert {*seen[3][2].tolist()} in ({1}, {1, 9})
    assert {*seen[-1][2].tolist()} == {9}


def test_without_a_snapshot_there_is_no_guest_yet():
    memory = _memory((1,))
    memory.clear(0)
    _, made = _make(memory)
    made.fetch(None)
    assert not made.is_ready
    memory.write(0, 1, _flat(1))
    made.fetch(None)
    assert made.is_ready


def test_a_read_that_fails_leaves_the_guest_as_it_was(monkeypatch):
    memory = _memory()
    environment, made = _make(memory)
    _play(environment, made, 5)
    before = made._guests[made._newer].version
    monkeypatch.setattr(memory, "read", lambda entry, into: False)
    for _ in range(20):
        made._draw()
        assert made.is_ready
        assert made._guests[made._newer].version == before


@pytest.mark.parametrize("has_state", [0, 1])
def test_a_resumed_actor_has_the_same_guests(has_state):
    memory = _memory()
    environment, made = _make(memory, has_state=has_state)
    _play(environment, made, 37)
    state = {"guests": made.state_dict(), "games": environment.state_dict()}
    generator = made._generator.get_state()
    memory.write(0, 8, _flat(8))  # a snapshot that plays may have left since
    other, again = _make(memory, has_state=has_state, seed=1)
    first = other.reset(list(range(other.num_envs)))
    again.reset(other.split(first)[1])
    again._generator.set_state(generator)
    again.load_state_dict(state["guests"])
    other.load_state_dict(state["games"])
    for _ in range(30):
        a, b = (each.act(0, torch.Generator()).copy() for each in (made, again))
        acts = made._time_step.acts
        np.testing.assert_array_equal(a[acts], b[acts])
        ours = np.zeros(other.num_envs, np.int64)
        for env, each, moves in ((environment, made, a), (other, again, b)):
            row, end = env.step((ours, moves))
            each.note(0, env.split(row)[1], end)
        np.testing.assert_array_equal(environment.opponents, other.opponents)


def test_nothing_of_a_guest_is_in_a_slot(tmp_path):
    """Each action, row and version of a slot is of the newest policy."""
    config = builders.config(
        **{
            "environment.id": "Connect",
            "network.torso": "mlp",
            "network.core": "lstm",
            "network.last_action": True,
            "actors.environments": 6,
            "actors.count": 1,
            "batch_size": 6,
            "league.every": 10,
        }
    )
    made = builders.shared(config, tmp_path / "checkpoints")
    learner = worker_builders.make_learner(made.topology.learner(), made)
    learner.restore(print)
    one = worker_builders.make_actor(made.topology.actors[0], 0, [made])
    environment, taken, rows = one._environment, [], []
    step = environment.step

    def noted(actions):
        taken.append([nest.map_structure(np.copy, each) for each in actions])
        result = step(actions)
        ours = environment._ours.copy()
        rows.append(nest.map_structure(lambda leaf: leaf[ours], result[0]))
        return result

    environment.step = noted
    for unroll in range(12):
        one.fetch()
        taken.clear()
        rows.clear()
        ring = made.rings.ring(0)
        assert one.guarded_unroll()
        slot = ring.peek(0)
        ours = np.stack([own for own, _ in taken])
        np.testing.assert_array_equal(slot.agent_output.action, ours)
        seen = nest.map_structure(lambda *leaves: np.stack(leaves), *rows)
        for mine, leaf in zip(
            nest.flatten(slot.time_step), nest.flatten(seen), strict=True
        ):
            np.testing.assert_array_equal(mine[1:], leaf)
        assert (slot.parameter_version == made.store.latest).all()
        assert slot.shape == (5, 6)
        opponent = slot.episode_end.game.opponent
        alone = environment._alone.size
        assert (opponent[:, :alone] == 0).all()
        assert (opponent[:, alone:] > 0).all()
        learner.turn()
        assert made.league.entries()[-1].version == unroll + 2
    one.close()
