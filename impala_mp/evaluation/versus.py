"""Games of a run's policies against others, each side in turn."""

import contextlib
import math
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.config import user_code
from impala_mp.environments import players, roster, vector
from impala_mp.evaluation import saved_run
from impala_mp.networks import agent
from impala_mp.storage import snapshot_file
from impala_mp.workers import evaluator, line_up

RANDOM, NEWEST = "random", "newest"
_SNAPSHOT = "snapshot:"  # before the version of one in the run's league
_SIGNATURE = "(observation, mask) -> action"


class Outcome(NamedTuple):
    """Games of one side, or of all: ours against the best of the others."""

    wins: int
    draws: int
    losses: int
    return_mean: float  # of our side: the sum over its players

    @property
    def mean(self) -> float:
        """Wins minus losses by game, from -1 to 1."""
        return (self.wins - self.losses) / (self.wins + self.draws + self.losses)


class _Scripted:
    """A function of one player's observation and mask, as a policy."""

    def __init__(
        self, name: str, function: Callable[..., Any], spec: specs.EnvironmentSpec
    ) -> None:
        self._name, self._function, self._spec = name, function, spec

    def initial_state(self, count: int) -> tuple[Any, ...]:
        return ()

    def step(
        self, time_step: types.TimeStep, state: Any, **unused: Any
    ) -> tuple[types.AgentOutput, Any]:
        rows = nest.map_structure(torch.Tensor.numpy, time_step.observation)
        mask = None
        if self._spec.action_mask == players.ALLOWED:
            mask = rows[players.ALLOWED]
        if isinstance(rows, dict) and players.OBSERVATION in rows:
            rows = rows[players.OBSERVATION]
        count = len(time_step.step_type)
        actions = [0] * count
        for i in np.flatnonzero(time_step.acts.numpy()).tolist():
            own = nest.map_structure(lambda leaf, i=i: leaf[i], rows)
            actions[i] = self._checked(
                self._function(own, None if mask is None else mask[i])
            )
        return types.AgentOutput(torch.tensor(actions), None, None), state

    def _checked(self, action: Any) -> int:
        size = self._spec.action.num_actions
        if not isinstance(action, (int, np.integer)) or not 0 <= action < size:
            raise errors.BadInput(
                f"against ({self._name!r}) returns {action!r}. It must return an action"
                f" from 0 to {size - 1}. Correct the function."
            )
        return int(action)


class _Sides:
    """Our policy as some of its players, and the opponent's as the others."""

    def __init__(self, ours: Any, theirs: Any, is_ours: Sequence[bool]) -> None:
        """is_ours: whether ours plays it, of each player in a game."""
        self._ours, self._theirs = ours, theirs
        self.plays = torch.tensor(is_ours)

    def initial_state(self, count: int) -> tuple[Any, Any]:
        self._is_ours = self.plays.repeat(count // len(self.plays))
        return self._ours.initial_state(count), self._theirs.initial_state(count)

    def step(
        self, time_step: types.TimeStep, state: tuple[Any, Any], **settings: Any
    ) -> tuple[types.AgentOutput, tuple[Any, Any]]:
        ours, mine = self._ours.step(time_step, state[0], **settings)
        theirs, other = self._theirs.step(time_step, state[1], **settings)

        def choose(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
            own = self._is_ours.view(-1, *[1] * (one.dim() - 1))
            return torch.where(own, one, two)

        action = nest.map_structure(choose, ours.action, theirs.action)
        return types.AgentOutput(action, None, None), (mine, other)


def play(
    run: saved_run.SavedRun,
    against: str,
    games: int,
    greedy: bool,
    trust: bool = False,
) -> dict[str, Any]:
    """Plays `games` games, as many as each side in turn; see `roster.sides_of`.

    Args:
      against: random, newest (the newest checkpoint of the run), snapshot:N (of its
        league), the folder of a run, the file of a snapshot, or "module:function", a
        function of the observation and the mask of the player that is to act.
      trust: True loads code in that folder that this user has not trained.

    Returns:
      As `play_both`, and `against`.

    Raises:
      BadInput: it is no game, or the opponent does not fit.
    """
    with contextlib.closing(run.environment(1)) as made:
        layouts, players_ = made.specs, made.players
    if len(players_) < 2:
        raise errors.BadInput(
            f"against ({against!r}) needs a game of several players, and"
            f" environment.id ({run.config.environment.id!r}) has a single one. Leave"
            " out --against."
        )
    ours = run.agents()
    theirs = _opponents(run, against, ours, layouts, trust)
    return {**play_both(run, ours, theirs, games, greedy), "against": against}


def play_both(
    run: saved_run.SavedRun,
    ours: Sequence[Any],
    theirs: Sequence[Any],
    games: int,
    greedy: bool,
) -> dict[str, Any]:
    """Plays `games` games in the run's environment, as many as each side in turn.

    Args:
      ours, theirs: what plays in place of each policy.

    Returns:
      mean, wins, draws and losses of our side, and the same by side.
    """
    with contextlib.closing(run.environment(1)) as made:
        layouts, players_ = made.specs, made.players
    sides = roster.sides_of(players_)
    outcomes: dict[str, Outcome] = {}
    for i, (side, numbers) in enumerate(sides.items()):
        if share := _share(games, i, len(sides)):
            members = {players_[number] for number in numbers}
            policies = [
                _Sides(one, other, [name in members for name in spec.players])
                for one, other, spec in zip(ours, theirs, layouts, strict=True)
            ]
            outcomes[side] = _play_side(run, policies, side, share, greedy)
    every = _total(list(outcomes.values()))
    return {
        **_as_dict(every),
        "episodes": every.wins + every.draws + every.losses,
        "by_side": {side: _as_dict(each) for side, each in outcomes.items()},
    }


class Entrant(NamedTuple):
    """A run or a snapshot of one, that plays against others."""

    run: saved_run.SavedRun
    agents: list[agent.Agent]
    layouts: tuple[specs.EnvironmentSpec, ...]


def entrant(path: str, trust: bool = False) -> Entrant:
    """Reads the folder of a run, or a snapshot of its league, DIR/league/N.pt.

    `trust` loads code in that folder that this user has not trained.

    Raises:
      BadInput: there is none, or it cannot be used.
    """
    folder, version = path, ""
    if path.endswith(".pt") and os.path.isfile(path):
        league, version = os.path.split(os.path.abspath(path))
        folder = os.path.dirname(league)
    run = saved_run.SavedRun(folder, trust)
    agents = run.agents()
    if version:
        _load_snapshot(run, agents, version.removesuffix(".pt"))
    with contextlib.closing(run.environment(1)) as made:
        return Entrant(run, agents, made.specs)


def _load_snapshot(
    run: saved_run.SavedRun, agents: Sequence[agent.Agent], version: str
) -> None:
    """Loads the parameters of a snapshot into the only policy of the run.

    Raises:
      BadInput: there is no such snapshot, or it cannot be read.
    """
    folder = os.path.join(run.path, snapshot_file.FOLDER)
    there = snapshot_file.versions(folder)
    if version not in map(str, there):
        raise errors.BadInput(
            f"{run.path} has no snapshot {version!r} of a league. It has"
            f" {', '.join(map(str, there)) or 'none'}. Name one of them."
        )
    try:
        state = snapshot_file.read(folder, int(version))
    except snapshot_file.Damaged as error:
        raise errors.BadInput(str(error)) from error
    (policy,) = agents  # several have no league
    saved_run.load_parameters(policy, state)


def _as_dict(outcome: Outcome) -> dict[str, float]:
    return {"mean": outcome.mean, **outcome._asdict()}


def _total(sides: list[Outcome]) -> Outcome:
    counts = [sum(each) for each in zip(*(side[:3] for side in sides), strict=True)]
    weights = [sum(side[:3]) for side in sides]
    means = [side.return_mean for side in sides]
    return Outcome(*counts, statistics.fmean(means, weights))


def _share(games: int, side: int, num_sides: int) -> int:
    return games // num_sides + (side < games % num_sides)


def _opponents(
    run: saved_run.SavedRun,
    against: str,
    ours: Sequence[agent.Agent],
    layouts: tuple[specs.EnvironmentSpec, ...],
    trust: bool,
) -> Sequence[Any]:
    """Returns what plays in place of each policy."""
    if against == RANDOM:
        return [
            evaluator.RandomPolicy(own, spec.action)
            for own, spec in zip(ours, layouts, strict=True)
        ]
    if against == NEWEST:
        return saved_run.SavedRun(run.path, config=run.config).agents()
    if against.startswith(_SNAPSHOT):
        agents = saved_run.SavedRun(run.path, config=run.config).agents()
        _load_snapshot(run, agents, against.removeprefix(_SNAPSHOT))
        return agents
    if ":" in against and not against.startswith((".", "/")):
        function = user_code.load("against", against, _SIGNATURE)
        for spec in layouts:
            if not isinstance(spec.action, specs.DiscreteSpec):
                raise errors.BadInput(
                    f"against ({against!r}) is a function, and the actions are"
                    f" {spec.action}. It needs one Discrete action. Name a run instead."
                )
        return [_Scripted(against, function, spec) for spec in layouts]
    _, policies, theirs = entrant(against, trust)
    if theirs != layouts:
        raise errors.BadInput(
            f"against ({against!r}) plays another game, or with other policies: "
            f"{_text(theirs)} instead of {_text(layouts)}. Name a run of the same game."
        )
    return policies


def _text(layouts: tuple[specs.EnvironmentSpec, ...]) -> str:
    return "; ".join(map(str, layouts))


def _play_side(
    run: saved_run.SavedRun,
    policies: Sequence[_Sides],
    side: str,
    share: int,
    greedy: bool,
) -> Outcome:
    """Plays `share` games in which the run plays the side."""
    settings = run.config.evaluation
    count = sum(len(policy.plays) for policy in policies)
    copies = max(1, min(share, settings.environments // count))
    with contextlib.closing(run.environment(copies * count)) as environment:
        played = evaluator.evaluate(
            line_up.of(policies, environment),
            environment,
            share * count,
            greedy,
            run.seed(),
            max_steps=settings.max_steps,
        )
    return outcome(played, environment, side)


def outcome(
    played: evaluator.Played, environment: vector.VectorEnvironment, side: str
) -> Outcome:
    """Counts games by whether `side` has more than the best of the other sides.

    The return of a side is the sum of the returns of its players, in all episodes that
    they had in the game.
    """
    players_ = environment.players
    sides = roster.sides_of(players_)
    games: dict[int, list[tuple[int, float]]] = {}
    for game, column, value in zip(
        played.games, played.columns, played.returns, strict=True
    ):
        games.setdefault(game, []).append((column % len(players_), value))
    wins = draws = losses = 0
    own: list[float] = []
    for episodes in games.values():
        totals = {
            name: math.fsum(value for player, value in episodes if player in members)
            for name, members in sides.items()
        }
        ours = totals.pop(side)
        best = max(totals.values())
        own.append(ours)
        wins += ours > best
        draws += ours == best
        losses += ours < best
    if not own:
        raise evaluator.NoGameEnded("no game has ended against the opponent.")
    return Outcome(wins, draws, losses, statistics.fmean(own))
