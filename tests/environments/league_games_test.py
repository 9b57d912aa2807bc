"""Columns of the policy and of guests, against a recount of whole games."""

import numpy as np
import pytest

from impala_mp import config as config_lib, errors, nest
from impala_mp.environments import factory, league_games, roster
from tests.support import skirmish

SKIRMISH = f"{skirmish.__name__}:Skirmish"
LAST = 2


def _config(name, columns, **fields):
    config = config_lib.get_base_config()
    config.environment.id = name
    config.actors.environments = columns
    config.league.every = 1
    config.update_from_flattened_dict(fields)
    if name == "Connect":
        config.environment.kwargs = {"rows": 3, "columns": 3, "length": 2}
    return config


def _make(name, columns, **fields):
    config = _config(name, columns, **fields)
    environment = league_games.make(config, columns, 0)
    assert environment.num_envs == columns
    return environment


def _random_moves(environment, time_step, rng):
    found = []
    for part in environment.split(time_step):
        if environment.spec.action_mask:
            allowed = nest.at(part.observation, environment.spec.action_mask)
            found.append(np.where(allowed, rng.random(allowed.shape), -1).argmax(-1))
        else:
            found.append(rng.integers(0, 1000, len(part.step_type)))
    return tuple(found)


class _Recount:
    """Whole games, by the rows of all columns: the twin."""

    def __init__(self, environment, versions):
        self.environment = environment
        players = environment.players
        self.sides = list(roster.sides_of(players).values())
        every = environment._games.num_envs // len(players)
        self.first = (every - environment.num_with_guests) * len(players)
        self.totals = np.zeros((environment.num_with_guests, len(players)))
        self.side = [g % len(self.sides) for g in range(environment.num_with_guests)]
        self.versions = versions
        self.over = [False] * environment.num_with_guests

    def step(self, time_step):
        """Results by game of those that ended in this row: {game: (version, ...)}."""
        found = {}
        count = len(self.environment.players)
        for game in range(self.environment.num_with_guests):
            rows = slice(self.first + game * count, self.first + (game + 1) * count)
            if self.over[game]:
                self.totals[game] = 0.0
                self.side[game] = (self.side[game] + 1) % len(self.sides)
            begins = self.over[game]
            self.totals[game] += time_step.reward[rows]
            self.over[game] = (time_step.step_type[rows] == LAST).all()
            if self.over[game] and not begins:
                sums = [self.totals[game][list(side)].sum() for side in self.sides]
                own = sums.pop(self.side[game])
                result = 1.0 if own > max(sums) else 0.5 if own == max(sums) else 0.0
                found[game] = (self.versions[game], result, self.side[game])
        return found


@pytest.mark.parametrize(
    ("name", "columns", "share"),
    [("Connect", 12, 0.5), ("Connect", 6, 1.0), (SKIRMISH, 24, 0.5), (SKIRMISH, 8, 1)],
)
def test_results_and_sides_are_those_of_a_recount(name, columns, share):
    environment = _make(name, columns, **{"league.share": share})
    rng, versions = np.random.default_rng(0), {}
    row = environment.reset(list(range(columns)))
    twin = _Recount(environment, versions)
    games = 0
    for step in range(400):
        for game in np.flatnonzero(environment.begun):
            environment.seat(np.arange(environment.num_with_guests) == game, 100 + step)
            versions[game] = 100 + step
        row, end = environment.step(_random_moves(environment, row, rng))
        expected = twin.step(row)
        ours, _ = environment.split_end(end)
        seen = {}
        for column in np.flatnonzero(~np.isnan(ours.game.result)):
            game = (column - environment._alone.size) // environment.side_size
            side = [
                i for i, s in enumerate(twin.sides) if ours.game.player[column] == s[0]
            ]
            opponent, result = ours.game.opponent[column], ours.game.result[column]
            seen[game] = (opponent, result, *side)
        assert seen == expected
        games += len(seen)
    assert games > 100


@pytest.mark.parametrize(("name", "columns"), [("Connect", 12), (SKIRMISH, 24)])
def test_every_column_is_of_one_and_its_rows_are_those_of_its_player(name, columns):
    environment = _make(name, columns)
    rng = np.random.default_rng(1)
    row = environment.reset(list(range(columns)))
    before = None
    for _ in range(200):
        parts = environment.split(row)
        columns_ = np.concatenate([environment._ours, environment._theirs])
        assert sorted(columns_) == list(range(environment._games.num_envs))
        assert [len(part.step_type) for part in parts] == environment.num_columns
        ours = parts[0]
        np.testing.assert_array_equal(ours.reward, row.reward[environment._ours])
        if before is not None:  # an episode of a column is one player's
            changed = environment._ours != before[0]
            assert (before[1][changed] == LAST).all()
            begins = ours.step_type == 0
            assert (begins | (ours.step_type == LAST))[changed].all()
        before = environment._ours.copy(), ours.step_type.copy()
        row, end = environment.step(_random_moves(environment, row, rng))
        whole = end.episode_return
        ours, theirs = environment.split_end(end)
        np.testing.assert_array_equal(ours.game.player, environment._player)
        both = np.sort(np.concatenate([ours.episode_return, theirs.episode_return]))
        np.testing.assert_array_equal(both, np.sort(whole))


def test_moves_go_to_their_columns():
    environment = _make(SKIRMISH, 24)
    environment.reset(list(range(24)))
    taken, step = [], environment._games.step
    environment._games.step = lambda action: taken.append(action) or step(action)
    ours, theirs = (np.arange(n) + first for n, first in ((24, 0), (12, 500)))
    theirs = np.arange(environment.num_columns[1]) + 500
    environment.step((ours, theirs))
    np.testing.assert_array_equal(taken[0][environment._ours], ours)
    # After a step the sides may have changed, in games that had ended only.
    assert sorted(taken[0]) == sorted([*ours, *theirs])


@pytest.mark.parametrize("name", ["Connect", SKIRMISH])
def test_a_snapshot_repeats_the_next_steps(name):
    environment, other = _make(name, 48), _make(name, 48)
    row = environment.reset(list(range(48)))
    other.reset(list(range(48)))
    rng = np.random.default_rng(2)
    for _ in range(23):
        row, _ = environment.step(_random_moves(environment, row, rng))
    other.load_state_dict(environment.state_dict())
    for _ in range(30):
        moves = _random_moves(environment, row, rng)
        row, end = environment.step(moves)
        again, its_end = other.step(moves)
        for a, b in zip(
            nest.flatten((row, end._replace(numbers=()))),
            nest.flatten((again, its_end._replace(numbers=()))),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("Catch", {}, "has a single player"),
        ("Connect", {"environment.sharing": "each"}, "and 2 policies do"),
        ("mpe2.simple_tag_v3:parallel_env", {}, r"adversary: 3, agent_0: 1"),
        ("Connect", {"learner.ranks": 2}, "learner.ranks is 2"),
        ("Connect", {"league.share": 0.01}, "leaves no game with a snapshot"),
    ],
)
def test_games_that_cannot_have_a_league_are_refused(name, fields, sentence):
    config = _config(name, 8, **fields)
    found = factory.probe_all(config.environment)
    with pytest.raises(errors.BadInput, match=sentence):
        league_games.check(config, found)
    config.league.every = 0
    league_games.check(config, found)
