"""Sides of a game: teams by the names of their players."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[_-]?\d+$")


def sides(players: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the numbers of each side's players, by the name of the side.

    Players whose names differ only in the number at their end are one side: `red_0` and
    `red_1` beside `blue_0` and `blue_1`. If that leaves a single side, each player is
    one: `player_0` beside `player_1`. A side of several players has their name without
    the number, and a side of one player has the player's.
    """
    teams: dict[str, list[int]] = {}
    for number, name in enumerate(players):
        teams.setdefault(_NUMBER.sub("", name), []).append(number)
    if len(teams) < 2:
        return {name: (number,) for number, name in enumerate(players)}
    return {
        team if len(numbers) > 1 else players[numbers[0]]: tuple(numbers)
        for team, numbers in teams.items()
    }
