"""Plays full games with fixed parameters, in the environment of training."""

import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from ml_collections import config_dict

from impala_mp import errors, nest, seeding
from impala_mp.config import by_value
from impala_mp.environments import bad_data, vector
from impala_mp.networks import agent

_MAX_BAD_IN_A_ROW = 100  # restarts without an ended game; then the evaluation ends

_MAX_CHARACTERS = 60  # of an argument, in a protocol

_RECORD = (
    "evaluation/return_mean",
    "evaluation/return_std",
    "evaluation/return_min",
    "evaluation/return_max",
    "evaluation/episodes",
    "evaluation/parameter_version",
)


def record_names(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of `as_record`, for tasks with these suffixes."""
    several = suffixes if len(suffixes) > 1 else ()
    return (*_RECORD, *(f"evaluation/return_mean{suffix}" for suffix in several))


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
    policy: agent.Agent,
    environment: vector.VectorEnvironment,
    episodes: int,
    greedy: bool,
    seed: np.random.SeedSequence,
    each_step: Callable[[], bool] = lambda: True,
    max_steps: float = math.inf,
    report: Callable[[str], None] = print,
) -> list[float]:
    """Plays `episodes` games and returns their full-game returns.

    Every copy plays a fixed share, because taking the first games to end would favour
    short ones. After bad data all copies restart.

    Args:
      each_step: called before each step; False ends the evaluation early.
      max_steps: limit of one game; a copy stops playing after a longer one.
      report: receives a sentence if fewer games are counted.
    """
    num_envs = environment.num_envs
    generator = torch.Generator().manual_seed(seeding.torch_seed(seed))
    new_seeds = seeding.EnvironmentSeeds(seed, num_envs)
    games = _Games(episodes, num_envs, max_steps)
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
                generator=generator,
            )
            action = nest.map_structure(torch.Tensor.numpy, output.action)
            time_step, ended = environment.step(action)
        except bad_data.BadData as error:
            time_step = None
            games.discard(error)
            continue
        games.count(ended.episode_return)
    for sentence in games.explain():
        report(sentence)
    return games.returns


class _Games:
    """Games that each copy has yet to play, and the returns of ended ones."""

    def __init__(self, episodes: int, num_envs: int, max_steps: float) -> None:
        self._episodes, self._max_steps = episodes, max_steps
        copies = np.arange(num_envs)
        self._shares = episodes // num_envs + (copies < episodes % num_envs)
        self._ages = np.zeros(num_envs, np.int64)  # steps of the games in progress
        self.returns: list[float] = []
        self._num_endless = 0  # games that are not counted
        self._num_bad = self._bad_in_a_row = 0  # restarts of all copies
        self._last_bad = ""

    def are_left(self) -> bool:
        return bool(self._shares.any()) and not self._is_hopeless()

    def _is_hopeless(self) -> bool:
        return self._bad_in_a_row >= _MAX_BAD_IN_A_ROW

    def count(self, episode_return: np.ndarray) -> None:
        """Counts one step of all copies: returns [E] of ended games, else NaN."""
        over = ~np.isnan(episode_return)
        counted = over & (self._shares > 0)
        if counted.any():
            self.returns.extend(episode_return[counted].tolist())
            self._bad_in_a_row = 0
        self._shares[counted] -= 1
        self._ages = np.where(over, 0, self._ages + 1)
        endless = self._ages > self._max_steps
        self._num_endless += int(self._shares[endless].sum())
        self._shares[endless] = 0

    def discard(self, error: bad_data.BadData) -> None:
        """Discards the games in progress."""
        self._ages[:] = 0
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
                f"{self._num_endless} of {self._episodes} games are not counted:"
                " their copies of the environment played one that did not end within"
                f" evaluation.max_steps ({self._max_steps:,}). Raise"
                " config.evaluation.max_steps, or give the environment a time limit."
            )
        return sentences


def as_record(by_task: dict[str, list[float]], version: int) -> dict[str, float]:
    """Returns the record of the returns of each task, by suffix."""
    summary = summarise([each for returns in by_task.values() for each in returns])
    several = by_task if len(by_task) > 1 else {}
    return {
        **{
            f"evaluation/return_mean{k}": statistics.fmean(v)
            for k, v in several.items()
        },
        "evaluation/return_mean": summary.mean,
        "evaluation/return_std": summary.std,
        "evaluation/return_min": summary.min,
        "evaluation/return_max": summary.max,
        "evaluation/episodes": summary.episodes,
        "evaluation/parameter_version": version,
    }
