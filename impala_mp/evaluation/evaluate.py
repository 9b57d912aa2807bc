"""Evaluates the newest checkpoint of a run, task by task."""

import contextlib
import io
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from impala_mp import errors
from impala_mp.environments import vector
from impala_mp.evaluation import saved_run
from impala_mp.monitoring import curves
from impala_mp.networks import agent
from impala_mp.storage import files
from impala_mp.workers import evaluator

_FRAMES_PER_SECOND = 25
_MAX_FRAMES = 3000  # two minutes


def evaluate(
    path: str,
    episodes: int,
    greedy: bool | None = None,
    policy: agent.Agent | None = None,
    video: str | None = None,
    trust: bool = False,
    config: Any = None,
) -> dict[str, Any]:
    """Evaluates the newest checkpoint in `path`; returns the statistics by name.

    `trust` and `config` are those of `SavedRun`.

    Raises:
      BadInput: there is no run, no valid checkpoint, or its code is not trusted.
      NoGameEnded: there are no returns.
    """
    if video:
        check_film(video)
    run = saved_run.SavedRun(path, trust, config)
    greedy = run.config.evaluation.greedy if greedy is None else greedy
    policy = run.agent(policy)
    by_task = play(run, policy, episodes, greedy, video)
    every = [each for returns in by_task.values() for each in returns]
    several = by_task if len(by_task) > 1 else {}
    return {
        **evaluator.summarise(every)._asdict(),
        **{f"mean{k}": statistics.fmean(v) for k, v in several.items()},
        "protocol": evaluator.protocol(run.config.environment, greedy),
        "agent_steps": run.agent_steps,
    }


def play(
    run: saved_run.SavedRun,
    policy: agent.Agent,
    episodes: int,
    greedy: bool,
    video: str | None = None,
) -> dict[str, list[float]]:
    """Plays `episodes` games of each task; returns the returns by the task's suffix.

    `video` is a file for a film of the first task.

    Raises:
      NoGameEnded: there are no returns.
    """
    return {
        suffix: play_task(run, policy, episodes, greedy, task, None if task else video)
        for task, suffix in enumerate(run.tasks)
    }


def play_task(
    run: saved_run.SavedRun,
    policy: agent.Agent,
    episodes: int,
    greedy: bool,
    task: int,
    video: str | None,
) -> list[float]:
    """Returns of `episodes` games of a task; `video` is a file for environment 0."""
    settings, warnings = run.config.evaluation, list[str]()
    count = min(episodes, settings.environments)
    environment = run.environment(count, task, "rgb_array" if video else None)
    film = Film(environment) if video else None
    with contextlib.closing(environment):
        returns = evaluator.evaluate(
            policy,
            environment,
            episodes,
            greedy,
            run.seed(),
            film or (lambda: True),
            settings.max_steps,
            warnings.append,
        )
    if film and video:
        film.save(video)
    if not returns:
        raise evaluator.NoGameEnded(f"no game has ended. {' '.join(warnings)}")
    for sentence in warnings:
        print(sentence, file=sys.stderr)
    return returns


def conclude(name: str, path: str, evaluate: Callable[[], dict[str, Any]]) -> None:
    """Prints the final report of the run in `path`; `evaluate` gives the statistics."""
    print(f"\nFinal evaluation: {_final_evaluation(evaluate)}", flush=True)
    folder = shlex.quote(path)
    print(
        f"Run:            {path}\n"
        f"Learning curve: {_learning_curve(name, path)}\n"
        f"TensorBoard:    {command('tensorboard')} --logdir={folder}\n"
        f"Evaluate again: {command('impala-eval')} --workdir={folder} --episodes=100"
    )


def command(name: str) -> str:
    """Returns `name`, or its path beside Python if it is not on PATH; shell-quoted."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    hidden = shutil.which(name) is None and os.path.exists(beside)
    return shlex.quote(beside) if hidden else name


def _final_evaluation(evaluate: Callable[[], dict[str, Any]]) -> str:
    try:
        result = evaluate()
    except evaluator.NoGameEnded as error:
        return f"none; {error}"
    return (
        f"mean return {_number(result['mean'])}, standard deviation"
        f" {_number(result['std'])}, over {result['episodes']} episodes"
        f" ({result['protocol']})."
    )


def _number(value: float) -> str:
    """Returns three decimals, or three digits of a number that they would hide."""
    return f"{value:.3g}" if 0.0 < abs(value) < 0.001 else f"{value:.3f}"


def _learning_curve(name: str, path: str) -> str:
    """Draws the learning curve; returns its file, or why there is none."""
    image = os.path.join(path, "learning_curve.png")
    try:
        curves.plot({name: [path]}, image)
    except errors.BadInput:
        return "none; no full game has ended in training."
    except OSError as error:  # a full disk
        return f"none ({error})."
    return image


def check_film(path: str) -> None:
    """Raises BadInput unless `path` can be written as a film."""
    if not path.endswith(".gif"):
        raise errors.BadInput(
            f"--video={path} is not an animated GIF. Use a name that ends in .gif."
        )
    files.check_place("video", path)


class Film:
    """Recorder of environment 0; called before each step."""

    def __init__(self, environment: vector.VectorEnvironment) -> None:
        self._environment = environment
        self._frames: list[np.ndarray] = []

    def __call__(self) -> bool:
        if len(self._frames) < _MAX_FRAMES:
            self._frames.append(np.array(self._environment.frame()))
        return True

    def save(self, path: str) -> None:
        images = [Image.fromarray(frame) for frame in self._frames]
        film = io.BytesIO()
        images[0].save(
            film,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=1000 // _FRAMES_PER_SECOND,
            loop=0,
        )
        files.write_atomically(path, film.getvalue(), durable=False)
