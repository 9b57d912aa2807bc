"""Plays full games with fixed parameters, in the environment of training."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ml_collections import config_dict

from impala_mp import errors, nest, seeding, specs, types
from impala_mp.config import by_value, derived
from impala_mp.environments import bad_data, vector
from impala_mp.networks import agent
from impala_mp.workers import confidence, line_up

_MAX_BAD_IN_A_ROW = 100  # restarts without an ended game; then the evaluation ends

# Seeds of games: a policy is chosen on one set, and reported on another.
SELECTION, REPORT = 1, 2

_MAX_CHARACTERS = 60  # of an argument, in a protocol

_RECORD = (
    "evaluation/return_mean",
    "evaluation/return_std",
    "evaluation/return_min",
    "evaluation/return_max",
    "evaluation/return_low",
    "evaluation/return_high",
    "evaluation/episodes",
    "evaluation/agent_steps",
)


def record_names(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of `as_record`, for tasks with these suffixes."""
    several = suffixes if len(suffixes) > 1 else ()
    return (*_RECORD, *(f"evaluation/return_mean{suffix}" for suffix in several))


def seed_of(config: Any, games: int) -> np.random.SeedSequence:
    """Returns the seed of SELECTION or REPORT, the same in each run of a folder."""
    return seeding.sequence(config.seed, "evaluator", games)


class NoGameEnded(errors.BadInput):
    """Evaluation without a single return."""


class Summary(NamedTuple):
    """Statistics of full-game returns, undiscounted and unclipped."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    episodes: int


class Played(NamedTuple):
    """Episodes of full games of one task, in the order in which the games ended."""

    returns: list[float]
    lengths: list[int]  # agent steps
    numbers: dict[str, list[float]]  # the user's, of the episodes that have them
    columns: list[int]  # of the environment
    games: list[int]  # their numbers; a player may have several episodes in one

    def by_label(
        self,
        suffix: str,
        labels: tuple[str, ...],
        policies: tuple[str, ...] = ("",),
    ) -> dict[str, "Played"]:
        """Returns the games by the suffix of their metrics; labels without are out.

        Args:
          suffix: that of the task, which is the only one without metrics by label.
          labels: those of the environment, one a player.
          policies: of the environment, each of which has metrics.
        """
        names = tuple(dict.fromkeys(labels))
        suffixes = derived.suffixes_of_players(names) or (suffix,)
        if len(policies) > 1:
            suffixes = tuple(f"/{name}" for name in names)
        if len(suffixes) == 1 or not self.returns:
            return {suffix: self}
        numbers = np.array([names.index(label) for label in labels])
        groups = numbers[np.array(self.columns, int) % len(labels)]

        def own(values: list[Any], player: int) -> list[Any]:
            return [values[i] for i in np.flatnonzero(groups == player)]

        there = sorted(set(groups.tolist()))
        return {
            suffixes[p]: Played(
                own(self.returns, p),
                own(self.lengths, p),
                # The user's numbers stay together: not every game has them.
                self.numbers if p == there[0] else {},
                own(self.columns, p),
                own(self.games, p),
            )
            for p in there
        }


class RandomPolicy:
    """Policy of uniformly random actions; of a Box without bounds, of normal ones."""

    def __init__(self, policy: agent.Agent, spec: specs.ActionSpec) -> None:
        self._agent, self._spec = policy, spec
        self.initial_state = policy.initial_state
        self._has_box = any(isinstance(x, specs.BoxSpec) for x in nest.flatten(spec))

    def step(
        self, time_step: Any, state: Any, *, generator: torch.Generator, **unused: Any
    ) -> tuple[types.AgentOutput, Any]:
        """Acts on one row, as `agent.Agent.step` does."""
        if not self._has_box:
            return self._agent.step(time_step, state, epsilon=1.0, generator=generator)
        output, state = self._agent.step(time_step, state, generator=generator)

        def draw(leaf: Any, action: torch.Tensor) -> torch.Tensor:
            if not isinstance(leaf, specs.BoxSpec):
                return action
            if leaf.is_bounded:  # tanh follows
                return (
                    torch.rand(action.shape, generator=generator).mul(2).sub(1).atanh()
                )
            return torch.randn(action.shape, generator=generator)

        action = nest.map_structure(draw, self._spec, output.action)
        return output._replace(action=action), state


def summarise(returns: list[float]) -> Summary:
    return Summary(
        mean=statistics.fmean(returns),
        median=statistics.median(returns),
        std=statistics.pstdev(returns),
        min=min(returns),
        max=max(returns),
        episodes=len(returns),
    )


def protocol(settings: Any, greedy: bool) -> str:
    """Describes `config.environment`, its settings, and the choice of actions."""
    kwargs = ", ".join(f"{k}={_short(v)}" for k, v in settings.kwargs.items())
    choice = "greedy actions" if greedy else "sampled actions"
    name = by_value.without_digests(settings.id)
    return f"{name}({kwargs}), full games, {choice}"


def _short(value: Any) -> str:
    """Returns an argument of the environment on one line."""
    if isinstance(value, config_dict.ConfigDict):
        value = value.to_dict()
    text = " ".join(str(value).split())
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."


@torch.inference_mode()
def evaluate(
    policy: line_up.Player | line_up.LineUp,
    environment: vector.VectorEnvironment,
    episodes: int,
    greedy: bool,
    seed: np.random.SeedSequence,
    each_step: Callable[[], bool] = lambda: True,
    max_steps: float = math.inf,
    report: Callable[[str], None] = print,
    epsilon: float = 0.0,
) -> Played:
    """Plays `episodes` full games and returns what came of them.

    Every copy plays a fixed share, because taking the first games to end would favour
    short ones. In a game of several players, `episodes` are rounded up to whole games,
    of one episode a player; a player born again has more, and one never born has none.
    Each member of a population plays as many. After bad data all copies restart.

    Args:
      each_step: called before each step; False ends the evaluation early.
      max_steps: limit of one game; a copy stops playing after a longer one.
      report: receives a sentence if fewer games are counted.
      epsilon: share of uniformly random actions.
    """
    num_envs = environment.num_envs
    # Members of a population play alone.
    num_players = len(environment.players) if environment.specs[0].waits else 1
    num_games = environment.num_episodes(episodes) // num_players
    generator = torch.Generator().manual_seed(seeding.torch_seed(seed))
    new_seeds = seeding.EnvironmentSeeds(seed, num_envs)
    games = _Games(num_games, num_players, num_envs // num_players, max_steps)
    time_step = None
    while games.are_left():
        try:
            if time_step is None:
                time_step = environment.reset(new_seeds())
                state = policy.initial_state(num_envs)
            if not each_step():
                break
            output, state = policy.step(
                nest.tensors(time_step),
                state,
                greedy=greedy,
                epsilon=epsilon,
                generator=generator,
            )
            action = nest.map_structure(torch.Tensor.numpy, output.action)
            time_step, ended = environment.step(action)
        except bad_data.BadData as error:
            time_step = None
            games.discard(error)
            continue
        games.count(time_step.step_type, ended, environment.numbers.names)
    for sentence in games.explain():
        report(sentence)
    return games.played


class _Episode(NamedTuple):
    """Result of an episode of one player."""

    column: int
    episode_return: float
    length: int
    numbers: dict[str, float]  # the user's


def _episode(end: types.EpisodeEnd, names: Sequence[str], column: int) -> _Episode:
    found = [] if end.numbers is None else end.numbers[column].tolist()
    pairs = zip(names, found, strict=False)
    return _Episode(
        column,
        float(end.episode_return[column]),
        int(end.episode_length[column]),
        {name: value for name, value in pairs if not math.isnan(value)},
    )


class _Games:
    """Games that each copy has yet to play, and the returns of ended ones."""

    def __init__(
        self, num_games: int, num_players: int, num_copies: int, max_steps: float
    ) -> None:
        self._num_games, self._num_players = num_games, num_players
        self._max_steps = max_steps
        copies = np.arange(num_copies)
        self._shares = num_games // num_copies + (copies < num_games % num_copies)
        self._ages = np.zeros(num_copies, np.int64)  # steps of the games in progress
        self._episodes: list[list[_Episode]] = [[] for _ in copies]  # of those games
        self.played = Played([], [], {}, [], [])
        self._num_over = 0  # games that are counted
        self._num_endless = 0  # games that are not counted
        self._num_bad = self._bad_in_a_row = 0  # restarts of all copies
        self._last_bad = ""

    def are_left(self) -> bool:
        return bool(self._shares.any()) and not self._is_hopeless()

    def _is_hopeless(self) -> bool:
        return self._bad_in_a_row >= _MAX_BAD_IN_A_ROW

    def count(
        self, step_type: np.ndarray, end: types.EpisodeEnd, names: Sequence[str]
    ) -> None:
        """Counts one step of all copies; `names` are those of the user's numbers.

        A game is over when the episodes of all its players are.
        """
        ended = ~np.isnan(end.episode_return)
        for column in np.flatnonzero(ended).tolist():
            episode = _episode(end, names, column)
            self._episodes[column // self._num_players].append(episode)
        last = (step_type == types.StepType.LAST).reshape(-1, self._num_players)
        over = last.all(1) & ended.reshape(-1, self._num_players).any(1)
        for copy in np.flatnonzero(over).tolist():
            if self._shares[copy]:
                self._shares[copy] -= 1
                self._add(self._episodes[copy])
            self._episodes[copy] = []
        self._ages = np.where(over, 0, self._ages + 1)
        endless = self._ages > self._max_steps
        self._num_endless += int(self._shares[endless].sum())
        self._shares[endless] = 0

    def _add(self, episodes: Sequence[_Episode]) -> None:
        """Adds a game that is over."""
        for each in episodes:
            self.played.returns.append(each.episode_return)
            self.played.lengths.append(each.length)
            self.played.columns.append(each.column)
            self.played.games.append(self._num_over)
            for name, value in each.numbers.items():
                self.played.numbers.setdefault(name, []).append(value)
        self._num_over += 1
        self._bad_in_a_row = 0

    def discard(self, error: bad_data.BadData) -> None:
        """Discards the games in progress."""
        self._ages[:] = 0
        self._episodes = [[] for _ in self._episodes]
        self._num_bad += 1
        self._bad_in_a_row += 1
        self._last_bad = str(error)

    def explain(self) -> list[str]:
        """Returns sentences on the games that are not counted."""
        sentences = []
        if self._num_bad:
            gave_up = ", then gave up," if self._is_hopeless() else ""
            sentences.append(
                f"The evaluation restarted its environments {self._num_bad} times"
                f"{gave_up} because they returned bad data (last: {self._last_bad})."
                " Games in progress at that moment are not counted."
            )
        if self._num_endless:
            sentences.append(
                f"{self._num_endless} of {self._num_games} games are not counted:"
                " their copies of the environment played one that did not end within"
                f" evaluation.max_steps ({self._max_steps:,}). Raise"
                " config.evaluation.max_steps, or give the environment a time limit."
            )
        return sentences


def as_line(
    by_task: dict[str, Played],
    purpose: str,
    policy: str,
    agent_steps: int,
    updates: int,
    time_secs: float,
    seed: np.random.SeedSequence,
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """Returns the line of evaluations.jsonl for the games of each task, by suffix."""
    every = [each for played in by_task.values() for each in played.returns]
    mean, half = statistics.fmean(every), float(confidence.half_width(np.array(every)))
    numbers: dict[str, list[float]] = {}
    for played in by_task.values():
        for name, values in played.numbers.items():
            numbers.setdefault(name, []).extend(values)
    return {
        "purpose": purpose,
        "policy": policy,
        "agent_steps": agent_steps,
        "updates": updates,
        "time_secs": time_secs,
        **summarise(every)._asdict(),
        "low": mean - half,
        "high": mean + half,
        "returns": {k.lstrip("/"): v.returns for k, v in by_task.items()},
        "lengths": {k.lstrip("/"): v.lengths for k, v in by_task.items()},
        "numbers": {
            name: {"mean": statistics.fmean(v), "min": min(v), "max": max(v)}
            for name, v in numbers.items()
        },
        "seeds": [str(seed.entropy), *map(int, seed.spawn_key)],
        "kwargs": {name: _short(value) for name, value in kwargs.items()},
    }


def as_record(line: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of an evaluation's line."""
    names = {"return_mean": "mean", "return_std": "std", "return_min": "min"}
    names |= {"return_max": "max", "return_low": "low", "return_high": "high"}
    names |= {"episodes": "episodes", "agent_steps": "agent_steps"}
    tasks = line["returns"] if len(line["returns"]) > 1 else {}
    return {
        **{f"evaluation/{metric}": line[key] for metric, key in names.items()},
        **{
            f"evaluation/return_mean/{task}": statistics.fmean(returns)
            for task, returns in tasks.items()
        },
    }
