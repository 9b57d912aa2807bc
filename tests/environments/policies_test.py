"""Games of several policies: the columns of each are those of one policy for all."""

import numpy as np
import pytest

from impala_mp import config as config_lib, nest, types
from impala_mp.environments import factory

TAG = "mpe2.simple_tag_v3:parallel_env"
TICTACTOE = "pettingzoo.classic.tictactoe_v3:env"
GAMES = 3


def _make(name, sharing, count):
    settings = config_lib.get_base_config().environment
    settings.id, settings.sharing = name, sharing
    return factory.make(settings, GAMES * count)


def _whole(environment, parts, values):
    """The values of each policy's columns, in the order of all columns."""
    found = np.empty((GAMES, len(environment.players), *values[0].shape[1:]), object)
    for player, (policy, column) in enumerate(environment.places):
        own = values[policy].reshape(GAMES, -1, *values[policy].shape[1:])
        found[:, player] = own[:, column]
    return found.reshape(-1, *found.shape[2:])


@pytest.mark.parametrize(
    ("name", "count", "sharing"),
    [
        ("Connect", 2, "each"),
        (TICTACTOE, 2, "each"),
        (TAG, 4, "kind"),
        (TAG, 4, "each"),
    ],
)
def test_columns_and_moves_are_those_of_a_single_policy(name, count, sharing):
    one, several = _make(name, "all", count), _make(name, sharing, count)
    rng = np.random.default_rng(0)
    seeds = list(range(GAMES * count))
    row, rows = one.reset(seeds), several.reset(seeds)
    for _ in range(60):
        parts = several.split(rows)
        for field in ("step_type", "reward", "discount", "acts"):
            expected = getattr(row, field)
            np.testing.assert_array_equal(getattr(rows, field), expected)
            mine = [getattr(part, field) for part in parts]
            whole = _whole(several, parts, mine).astype(expected.dtype)
            np.testing.assert_array_equal(whole, expected)
        for player, (policy, column) in enumerate(several.places):
            theirs = nest.flatten(row.observation)
            mine = nest.flatten(parts[policy].observation)
            for wide, own in zip(theirs, mine, strict=True):
                size = own.reshape(GAMES, -1, *own.shape[1:])[:, column]
                seen = wide.reshape(GAMES, count, *wide.shape[1:])[:, player]
                corner = tuple(slice(n) for n in size.shape[1:])
                np.testing.assert_array_equal(seen[(slice(None), *corner)], size)
        action = _legal(one, row, rng)
        split = [np.zeros(n, np.int64) for n in several.num_columns]
        for player, (policy, column) in enumerate(several.places):
            own = split[policy].reshape(GAMES, -1)
            own[:, column] = action.reshape(GAMES, count)[:, player]
        row, end = one.step(action)
        rows, ends = several.step(tuple(split))
        np.testing.assert_array_equal(end.episode_return, ends.episode_return)
        cut = _whole(
            several, parts, [e.episode_return for e in several.split_end(ends)]
        )
        np.testing.assert_array_equal(cut.astype(np.float32), end.episode_return)


def _legal(environment, row, rng):
    if environment.spec.action_mask:
        allowed = nest.at(row.observation, environment.spec.action_mask)
        return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(-1)
    return rng.integers(environment.spec.action.num_actions, size=len(row.step_type))


def test_labels_are_players_or_policies():
    assert _make("Connect", "all", 2).labels == ("player_0", "player_1")
    tag = _make(TAG, "kind", 4)
    assert tag.labels == ("adversary", "adversary", "adversary", "agent")
    assert tag.num_columns == [3 * GAMES, GAMES]
    assert isinstance(tag.reset(list(range(12))), types.TimeStep)
