"""Roster of a game: which policy plays which players, by `config.environment`."""

import fnmatch
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from impala_mp import errors
from impala_mp.config import policies

ALL, KIND, EACH = "all", "kind", "each"
_NAME = re.compile(r"[A-Za-z]\w*")


class Share(NamedTuple):
    """One policy, and the numbers of the players that it plays, in their order."""

    policy: str  # "" if there is a single one
    players: tuple[int, ...]

    def columns(self, num_games: int, num_players: int) -> np.ndarray | slice:
        """Returns its columns among those of all players, game by game."""
        if len(self.players) == num_players:
            return slice(None)
        games = np.arange(num_games)[:, None] * num_players
        return (games + np.array(self.players)).reshape(-1)


def together(players: Sequence[str], spaces: Sequence[Any]) -> tuple[Share, ...]:
    """Deals all players to a single policy."""
    return (Share("", tuple(range(len(players)))),)


def deal(
    environment: Any, players: Sequence[str], spaces: Sequence[Any]
) -> tuple[Share, ...]:
    """Deals the players out to policies.

    Args:
      environment: `config.environment`.
      players: their ids.
      spaces: what each observes and does, in any form that compares equal.

    Raises:
      BadInput: a player is named by no policy or by several, or a policy names none.
    """
    if environment.policies:
        return _by_name(environment, players)
    if environment.sharing == ALL:
        return together(players, spaces)
    kinds: dict[Any, list[int]] = {}
    for number, player in enumerate(players):
        kind = player if environment.sharing == EACH else kind_of(player)
        kinds.setdefault((kind, _index(spaces, spaces[number])), []).append(number)
    names = [kind for kind, _ in kinds]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise errors.BadInput(
            f"environment.id ({environment.id!r}) has players of kind {twice!r} with"
            " different spaces. Name their policies in config.environment.policies."
        )
    return _checked(
        environment,
        players,
        [
            Share(_clean(name), tuple(numbers))
            for name, numbers in zip(names, kinds.values(), strict=True)
        ],
    )


def _index(values: Sequence[Any], value: Any) -> int:
    return next(i for i, other in enumerate(values) if other == value)


def kind_of(player: str) -> str:
    """Returns a player's id without the number at its end."""
    return re.sub(r"[_-]?\d+$", "", player) or player


def sides_of(players: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the numbers of each side's players, by the name of the side.

    Players whose names differ only in the number at their end are one side: `red_0` and
    `red_1` beside `blue_0` and `blue_1`. If that leaves a single side, each player is
    one: `player_0` beside `player_1`. A side of several players has their name without
    the number, and a side of one player has the player's.
    """
    teams: dict[str, list[int]] = {}
    for number, name in enumerate(players):
        teams.setdefault(kind_of(name), []).append(number)
    if len(teams) < 2:
        return {name: (number,) for number, name in enumerate(players)}
    return {
        team if len(numbers) > 1 else players[numbers[0]]: tuple(numbers)
        for team, numbers in teams.items()
    }


def _clean(name: str) -> str:
    found = re.sub(r"\W", "_", name)
    return found if _NAME.fullmatch(found) else f"p{found}"


def _by_name(environment: Any, players: Sequence[str]) -> tuple[Share, ...]:
    if environment.sharing != ALL:
        raise errors.BadInput(
            f"environment.policies and environment.sharing ({environment.sharing!r})"
            f" both deal the players out. Set config.environment.sharing={ALL}."
        )
    owners: dict[str, list[int]] = {}
    for name, patterns in environment.policies.items():
        if not isinstance(patterns, str):
            raise errors.BadInput(
                f"environment.policies.{name} ({patterns!r}) must be a pattern of"
                " players, or several, separated by commas, such as 'agent_*'."
            )
        each = [pattern.strip() for pattern in patterns.split(",")]
        owners[name] = [
            number
            for number, player in enumerate(players)
            if any(fnmatch.fnmatchcase(player, pattern) for pattern in each)
        ]
        if not owners[name]:
            raise errors.BadInput(
                f"environment.policies.{name} ({patterns!r}) names no player of"
                f" {', '.join(players)}. Correct the pattern, or remove the policy."
            )
    for number, player in enumerate(players):
        names = [name for name, numbers in owners.items() if number in numbers]
        if len(names) != 1:
            by = " and ".join(names) or "none of the policies"
            raise errors.BadInput(
                f"player {player!r} is named by {by} in environment.policies"
                f" ({dict(environment.policies)}). Name each player once."
            )
    shares = [Share(name, tuple(numbers)) for name, numbers in owners.items()]
    return _checked(environment, players, shares)


def _checked(
    environment: Any, players: Sequence[str], shares: list[Share]
) -> tuple[Share, ...]:
    """Returns the shares; a single policy has no name."""
    names = [share.policy for share in shares]
    for share in shares:
        own = [players[number] for number in share.players]
        if names.count(share.policy) > 1 or share.policy in {*players} - {*own}:
            raise errors.BadInput(
                f"policy {share.policy!r}, of {', '.join(own)}, has the name of another"
                " policy or player. Name the policies in config.environment.policies."
            )
        policies.check_name(share.policy)
        if not _NAME.fullmatch(share.policy):
            raise errors.BadInput(
                f"policy {share.policy!r} must have a name of letters, digits and _,"
                " beginning with a letter. Rename it in config.environment.policies."
            )
    if environment.shows_player and len(shares) == len(players) > 1:
        raise errors.BadInput(
            "environment.shows_player has no effect where each player has its own"
            " policy. Set config.environment.shows_player=False."
        )
    if len(shares) == 1:
        return (shares[0]._replace(policy=""),)
    return tuple(shares)
