"""Rules of a league: which snapshots stay, who plays whom, and how strong they are.

Plain arithmetic on `config.league` and the results of games. A win counts 1, a draw
1/2, a loss 0.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from impala_mp import errors

UNIFORM, HARD, EVEN, LATEST = "uniform", "hard", "even", "latest"
DRAWS = (UNIFORM, HARD, EVEN, LATEST)

WINDOW = 100  # games that a win rate remembers
MIN_GAMES = 20  # against each snapshot, before league.threshold counts
_PRIOR = 2.0  # games that a win rate of 1/2 stands for at first
_PER_DECADE = 400.0  # points of Elo for odds of 10 to 1
_MAX_ELO = 1e5
_FLOOR = 1e-3  # weight of a snapshot, so that no win rate is final


@dataclasses.dataclass
class Record:
    """Games of the newest policy against one snapshot."""

    version: int
    agent_steps: int  # when it was taken
    elo: float  # of the snapshot
    wins: int = 0
    draws: int = 0
    losses: int = 0
    win_rate: float = 0.5  # of the last games; the oldest count least

    @property
    def games(self) -> int:
        return self.wins + self.draws + self.losses

    def add(self, result: float) -> None:
        """Counts a game."""
        self.wins += result == 1.0
        self.draws += result == 0.5
        self.losses += result == 0.0
        step = 1.0 / min(self.games + _PRIOR, WINDOW)
        self.win_rate += step * (result - self.win_rate)


def weights(win_rates: Sequence[float], draw: str) -> list[float]:
    """Returns how often each snapshot is drawn: they add up to 1.

    hard and even are AlphaStar's (Vinyals et al. 2019): (1 - p)^2 meets those that win,
    and p (1 - p) those of the same strength.

    Args:
      win_rates: of the newest policy, the oldest snapshot first.
      draw: one of DRAWS.
    """
    if draw == LATEST:
        return [0.0] * (len(win_rates) - 1) + [1.0] * bool(win_rates)
    of_rate = {
        UNIFORM: lambda p: 1.0,
        HARD: lambda p: (1.0 - p) ** 2 + _FLOOR,
        EVEN: lambda p: p * (1.0 - p) + _FLOOR,
    }[draw]
    found = [of_rate(p) for p in win_rates]
    return [each / math.fsum(found) for each in found]


def is_beaten(records: Sequence[Record], threshold: float) -> bool:
    """Returns whether the newest policy beats each snapshot more often than that."""
    return bool(threshold) and all(
        each.games >= MIN_GAMES and each.win_rate > threshold for each in records
    )


def to_drop(ages: Sequence[float], size: int) -> int | None:
    """Returns the index of the snapshot that leaves, or None if all may stay.

    The newest half stays, and the oldest. Between them the snapshot leaves that is
    missed least: its gap is the smallest for its age. Gaps then grow with the age.

    Args:
      ages: positive, descending: the oldest first.
      size: snapshots that may stay.
    """
    if len(ages) <= size:
        return None
    last = len(ages) - (size + 1) // 2  # the first of the newest half
    inner = range(1, last)
    if not inner:  # a single snapshot is the newest
        return 0
    return min(inner, key=lambda i: (ages[i - 1] - ages[i + 1]) / ages[i])


def elo(records: Sequence[Record]) -> float:
    """Returns the Elo at which the win rates against all snapshots are the likeliest.

    A snapshot that played more counts more, up to WINDOW games. One drawn game against
    the newest snapshot is added, so that it is finite.
    """
    if not records:
        return 0.0
    games = [(r.elo, r.win_rate, float(min(r.games, WINDOW))) for r in records]
    games.append((records[-1].elo, 0.5, 1.0))
    low, high = -_MAX_ELO, _MAX_ELO
    while high - low > 0.01:
        middle = 0.5 * (low + high)
        missing = math.fsum(n * (p - expected(middle - own)) for own, p, n in games)
        low, high = (middle, high) if missing > 0.0 else (low, middle)
    return 0.5 * (low + high)


def expected(difference: float) -> float:
    """Returns the win rate of a policy that is `difference` points stronger."""
    return 0.5 * (1.0 + math.tanh(0.5 * math.log(10.0) * difference / _PER_DECADE))


class Plan(NamedTuple):
    """Games of one actor: the first are the newest policy's against itself."""

    num_games: int
    num_with_guests: int


def plan(settings: Any, num_columns: int, num_players: int, num_sides: int) -> Plan:
    """Deals an actor's columns out to games, as near to league.share as they go.

    In a game against itself the newest policy fills a column a player, and in a game
    with guests one for each player of its side.

    Args:
      settings: `config.league`.
      num_columns: of the actor, a multiple of the players.
      num_players: of a game, in sides of equal size.
      num_sides: of a game.

    Raises:
      BadInput: no game would be played with guests.
    """
    size = num_players // num_sides
    sides = num_columns // size
    plans = [
        Plan(with_guests + alone, with_guests)
        for alone in range(sides // num_sides + 1)
        for with_guests in (sides - alone * num_sides,)
    ]
    share = settings.share

    def distance(each: Plan) -> float:
        return abs(each.num_with_guests / each.num_games - share)

    found = min(plans, key=distance)
    if not found.num_with_guests:
        raise errors.BadInput(
            f"league.share ({share:.6g}) leaves no game with a snapshot among the"
            f" {found.num_games} of an actor with actors.environments"
            f" ({num_columns}). Raise config.league.share, or"
            " config.actors.environments."
        )
    return found
