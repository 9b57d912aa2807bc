"""Which players of a game are one side."""

import pytest

from impala_mp.environments import sides


@pytest.mark.parametrize(
    ("players", "expected"),
    [
        # One kind: each player is a side.
        ("player_0 player_1", {"player_0": (0,), "player_1": (1,)}),
        ("player_1 player_2", {"player_1": (0,), "player_2": (1,)}),
        ("p9 p10 p11", {"p9": (0,), "p10": (1,), "p11": (2,)}),
        ("alone", {"alone": (0,)}),
        # Several: each kind is one, also where they alternate.
        ("red_0 red_1 blue_0 blue_1", {"red": (0, 1), "blue": (2, 3)}),
        ("red-0 blue-0 red-10", {"red": (0, 2), "blue-0": (1,)}),
        ("adversary_0 adversary_1 agent_0", {"adversary": (0, 1), "agent_0": (2,)}),
        ("white black", {"white": (0,), "black": (1,)}),
        ("first_0 second_0", {"first_0": (0,), "second_0": (1,)}),
        # Only the number at the end is one.
        ("team_1_a team_2_a", {"team_1_a": (0,), "team_2_a": (1,)}),
        ("team_1_0 team_1_1 team_2_0", {"team_1": (0, 1), "team_2_0": (2,)}),
    ],
)
def test_players_that_differ_in_their_number_are_one_side(players, expected):
    found = sides.sides(players.split())
    assert found == expected
    assert list(found) == list(expected)
