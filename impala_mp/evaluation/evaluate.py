"""Evaluates a checkpoint of a run, task by task."""

import contextlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp import errors
from impala_mp.evaluation import saved_run, versus as versus_lib
from impala_mp.storage import evaluations
from impala_mp.workers import evaluator, film as film_lib, line_up


def evaluate(
    path: str,
    episodes: int,
    greedy: bool | None = None,
    video: str | None = None,
    trust: bool = False,
    which: str | int = "newest",
    policy: str = "",
) -> dict[str, Any]:
    """Evaluates a checkpoint in `path`; returns the statistics by name.

    `trust`, `which` and `policy` are those of `SavedRun`; a policy is a member of a
    population.

    Raises:
      BadInput: there is no run, no valid checkpoint, or its code is not trusted.
      NoGameEnded: there are no returns.
    """
    if video:
        film_lib.check(video)
    run = saved_run.SavedRun(path, trust, which=which, policy=policy)
    run.check_plays_alone(policy)
    greedy = run.config.evaluation.greedy if greedy is None else greedy
    return statistics_of(run, play(run, run.agents(), episodes, greedy, video), greedy)


def versus(
    path: str,
    against: str,
    games: int,
    greedy: bool | None = None,
    trust: bool = False,
    which: str | int = "newest",
) -> dict[str, Any]:
    """Plays a checkpoint in `path` against another policy; see `versus.play`."""
    run = saved_run.SavedRun(path, trust, which=which)
    if run.num_members:
        raise errors.BadInput(
            f"--against={against} needs a game of several players, and {path} has a"
            " population, whose members play alone. Leave it out."
        )
    greedy = run.config.evaluation.greedy if greedy is None else greedy
    return versus_lib.play(run, against, games, greedy, trust)


def statistics_of(
    run: saved_run.SavedRun, by_task: dict[str, evaluator.Played], greedy: bool
) -> dict[str, Any]:
    """Returns the statistics of played games by name."""
    line = as_line(run, by_task, evaluations.FINAL, greedy, run.seed())
    names = (*evaluator.Summary._fields, "low", "high", "numbers", "agent_steps")
    several = by_task if len(by_task) > 1 else {}
    return {
        **{name: line[name] for name in names},
        **{f"mean{k}": statistics.fmean(v.returns) for k, v in several.items()},
        **({"best": best_member(line)} if run.num_members > 1 else {}),
        "protocol": evaluator.protocol(run.evaluation_environment, greedy),
    }


def best_member(line: dict[str, Any]) -> str:
    """Returns the member of a population with the highest mean return in a line."""
    returns: dict[str, list[float]] = line["returns"]
    return max(returns, key=lambda member: statistics.fmean(returns[member]))


def as_line(
    run: saved_run.SavedRun,
    by_task: dict[str, evaluator.Played],
    purpose: str,
    greedy: bool,
    seed: np.random.SeedSequence,
) -> dict[str, Any]:
    """Returns the line of evaluations.jsonl for games that a checkpoint has played."""
    return evaluator.as_line(
        by_task,
        purpose,
        evaluations.GREEDY if greedy else evaluations.SAMPLED,
        run.agent_steps,
        run.updates,
        run.time_secs,
        seed,
        run.evaluation_environment.kwargs,
    )


def play(
    run: saved_run.SavedRun,
    policies: Sequence[line_up.Player],
    episodes: int,
    greedy: bool,
    video: str | None = None,
    seed: np.random.SeedSequence | None = None,
) -> dict[str, evaluator.Played]:
    """Plays `episodes` games of each task; returns them by the task's suffix.

    Args:
      policies: in the order of the environment's.
      video: a file for a film of the first task.
      seed: None: that of the run's games.

    Raises:
      NoGameEnded: there are no returns.
    """
    found = {}
    for task, suffix in enumerate(run.tasks):
        file = None if task else video
        found |= play_task(run, policies, episodes, greedy, task, suffix, file, seed)
    return found


def play_task(
    run: saved_run.SavedRun,
    policies: Sequence[line_up.Player],
    episodes: int,
    greedy: bool,
    task: int,
    suffix: str,
    video: str | None,
    seed: np.random.SeedSequence | None = None,
) -> dict[str, evaluator.Played]:
    """Plays `episodes` games of a task; returns them by its suffix, player or policy.

    `video` is a file for a film of copy 0.
    """
    settings, warnings = run.config.evaluation, list[str]()
    count = min(episodes, settings.environments)
    environment = run.environment(count, task, "rgb_array" if video else None)
    with contextlib.closing(environment):
        film = film_lib.Film(environment) if video else None
        played = evaluator.evaluate(
            line_up.of(policies, environment),
            environment,
            episodes,
            greedy,
            run.seed() if seed is None else seed,
            film or (lambda: True),
            settings.max_steps,
            warnings.append,
        )
        if film and video:
            film()  # the end of the last game
            film.save(video)
    if not played.returns:
        raise evaluator.NoGameEnded(f"no game has ended. {' '.join(warnings)}")
    for sentence in warnings:
        print(sentence, file=sys.stderr)
    return played.by_label(suffix, environment.labels, environment.policies)
