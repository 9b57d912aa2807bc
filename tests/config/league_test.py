"""Who plays whom, which snapshots stay, and how strong a policy is."""

import math
import random

import ml_collections
import pytest

from impala_mp import errors
from impala_mp.config import league


def _records(*rates, games=100, elos=None):
    elos = elos or [0.0] * len(rates)
    return [
        league.Record(i + 1, 0, elo, wins=games, win_rate=rate)
        for i, (rate, elo) in enumerate(zip(rates, elos, strict=True))
    ]


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("latest", [0.0, 0.0, 1.0]),
        ("hard", [0.25, 0.01, 0.81]),  # (1 - p)^2, over their sum
        ("even", [0.25, 0.09, 0.09]),  # p (1 - p)
    ],
)
def test_weights_are_those_of_a_table_made_by_hand(draw, expected):
    found = league.weights([0.5, 0.9, 0.1], draw)
    total = sum(expected)
    assert found == pytest.approx([x / total for x in expected], abs=2e-3)
    assert sum(found) == pytest.approx(1.0)


def test_a_snapshot_that_always_loses_is_still_met():
    assert min(league.weights([1.0, 0.5], "hard")) > 0.0
    assert league.weights([1.0, 1.0], "hard") == [0.5, 0.5]
    assert league.weights([], "latest") == []


def test_a_win_rate_begins_at_a_half_and_forgets():
    record = league.Record(1, 0, 0.0)
    record.add(1.0)
    assert record.win_rate == pytest.approx((0.5 * 2 + 1) / 3)
    for result in (1.0, 0.5, 0.0):
        record.add(result)
    assert (record.wins, record.draws, record.losses) == (2, 1, 1)
    assert record.win_rate == pytest.approx((0.5 * 2 + 2.5) / 6)
    for _ in range(1000):
        record.add(0.0)
    assert record.win_rate < 1e-3
    for _ in range(league.WINDOW):
        record.add(1.0)
    assert 0.6 < record.win_rate < 0.7  # 1 - 1/e of the window is new


def test_the_threshold_counts_against_each_snapshot():
    assert league.is_beaten(_records(0.8, 0.9), 0.7)
    assert not league.is_beaten(_records(0.8, 0.6), 0.7)
    assert not league.is_beaten(_records(0.8, 0.9, games=19), 0.7)
    assert not league.is_beaten(_records(0.8, 0.9), 0.0)  # off


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16])
def test_the_newest_half_stays_and_older_ones_thin_out(size):
    kept = []
    for version in range(1, 301):
        kept.append(version)
        index = league.to_drop([1.0 + version - each for each in kept], size)
        if index is not None:
            kept.pop(index)
        assert len(kept) <= size
        newest = min(version, (size + 1) // 2)
        assert kept[-newest:] == list(range(version - newest + 1, version + 1))
    assert len(kept) == size
    if size >= 8:
        assert kept[0] == 1  # the first is never dropped
        gaps = [b - a for a, b in zip(kept, kept[1:], strict=False)]
        assert gaps[0] > 20  # rare where they are old
        assert gaps == sorted(gaps, reverse=True) or max(gaps[size // 2 :]) <= 2


def test_elo_is_that_of_the_odds():
    (at_400,) = _records(10 / 11)
    assert league.elo([at_400]) == pytest.approx(400.0, abs=15.0)
    both = _records(0.5, 10 / 11, elos=[400.0, 0.0])
    assert league.elo(both) == pytest.approx(400.0, abs=5.0)
    assert league.elo([]) == 0.0
    assert math.isfinite(league.elo(_records(1.0)))
    assert league.elo(_records(1.0)) > 700.0
    assert league.expected(400.0) == pytest.approx(10 / 11)


def test_elo_does_not_depend_on_snapshots_that_did_not_play():
    unplayed = league.Record(1, 0, -3000.0)
    played = league.Record(2, 0, 0.0, wins=100, win_rate=10 / 11)
    assert league.elo([unplayed, played]) == league.elo([played])


def _settings(share):
    return ml_collections.ConfigDict({"share": share})


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_fills_all_columns(seed):
    rng = random.Random(seed)
    num_sides, size = rng.randint(2, 4), rng.randint(1, 3)
    players = num_sides * size
    columns, share = players * rng.randint(2, 30), rng.uniform(0.3, 1.0)
    plan = league.plan(_settings(share), columns, players, num_sides)
    alone = plan.num_games - plan.num_with_guests
    assert alone * players + plan.num_with_guests * size == columns
    assert plan.num_with_guests > 0
    # No other number of games is nearer to the share.
    for other in range(columns // players + 1):
        guests = columns // size - other * num_sides
        distance = abs(guests / (other + guests) - share)
        assert abs(plan.num_with_guests / plan.num_games - share) <= distance + 1e-12


def test_all_games_or_none():
    assert league.plan(_settings(1.0), 8, 2, 2) == (8, 8)
    assert league.plan(_settings(0.5), 128, 2, 2) == (85, 42)
    with pytest.raises(errors.BadInput, match="leaves no game with a snapshot"):
        league.plan(_settings(0.01), 8, 2, 2)
