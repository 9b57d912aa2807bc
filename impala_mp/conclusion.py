"""The last words of a training: its evaluation, its learning curve, what to do next."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

from impala_mp import curves, errors, evaluator


def tell(config: Any, path: str, evaluate: Callable[[], dict[str, Any]]) -> None:
    """Prints them, of the run in the folder `path`; `evaluate` gives statistics."""
    print(f"\nFinal evaluation: {_evaluation(evaluate)}", flush=True)
    folder = shlex.quote(path)
    print(
        f"Run:            {path}\n"
        f"Learning curve: {_learning_curve(config, path)}\n"
        f"TensorBoard:    {command('tensorboard')} --logdir={folder}\n"
        f"Evaluate again: {command('impala-eval')} --workdir={folder} --episodes=100"
    )


def command(name: str) -> str:
    """As a shell finds it: what is not on PATH stands beside Python."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    hidden = shutil.which(name) is None and os.path.exists(beside)
    return shlex.quote(beside) if hidden else name


def _evaluation(evaluate: Callable[[], dict[str, Any]]) -> str:
    try:
        result = evaluate()
    except evaluator.NoGameEnded as error:
        return f"none, {error}"
    return (
        f"mean return {result['mean']:.3f}, standard deviation"
        f" {result['std']:.3f}, over {result['episodes']} episodes"
        f" ({result['protocol']})."
    )


def _learning_curve(config: Any, path: str) -> str:
    """The name of its picture, or why there is none."""
    image = os.path.join(path, "learning_curve.png")
    try:
        curves.plot({config.environment.id: [path]}, image)
    except errors.BadInput:
        return "none, for no full game has ended in training."
    except OSError as error:  # a full disk
        return f"none ({error})."
    return image
