"""Whole games with fixed parameters, by the agent and environment of training."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_mp import agent, nest, seeding, types
from impala_mp.environments import vector

_RECORD = (
    "evaluation/return_mean",
    "evaluation/return_std",
    "evaluation/return_min",
    "evaluation/return_max",
    "evaluation/episodes",
    "evaluation/parameter_version",
)


def record_names(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """What `as_record` gives, for tasks with these suffixes."""
    several = suffixes if len(suffixes) > 1 else ()
    return (*_RECORD, *(f"evaluation/return_mean{suffix}" for suffix in several))


class Summary(NamedTuple):
    """Of the full-game returns, undiscounted and unclipped."""

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


def protocol(config: Any, greedy: bool) -> str:
    """What a mean return means: environment, settings, and how actions are chosen."""
    settings = ", ".join(
        f"{k}={v}" for k, v in sorted(config.environment.kwargs.items())
    )
    choice = "greedy actions" if greedy else "sampled actions"
    return f"{config.environment.id}({settings}), full games, {choice}"


@torch.inference_mode()
def evaluate(
    policy: agent.Agent,
    environment: vector.VectorEnvironment,
    episodes: int,
    greedy: bool,
    seed: np.random.SeedSequence,
    each_step: Callable[[], bool] = lambda: True,
) -> list[float]:
    """Full-game returns of exactly `episodes` games.

    Every copy plays a share that is fixed beforehand: taking the first games to end
    would favour short ones.

    Args:
      each_step: called before each step; False ends the evaluation early.
    """
    num_envs = environment.num_envs
    quotas = [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]
    generator = torch.Generator().manual_seed(seeding.torch_seed(seed))
    state = policy.initial_state(num_envs)
    time_step = environment.reset(seeding.environment_seeds(seed, num_envs))
    returns: list[float] = []
    while any(quotas) and each_step():
        output, state = policy.step(
            tensors(time_step),
            state,
            greedy=greedy,
            generator=generator,
        )
        action = nest.map_structure(torch.Tensor.numpy, output.action)
        time_step, ended = environment.step(action)
        for i in np.flatnonzero(~np.isnan(ended.episode_return)):
            if quotas[i]:
                quotas[i] -= 1
                returns.append(float(ended.episode_return[i]))
    return returns


def tensors(time_step: types.TimeStep) -> types.TimeStep:
    """Rows of an environment as an agent takes them; they may share its memory."""
    return nest.map_structure(
        lambda array: torch.from_numpy(np.ascontiguousarray(array)), time_step
    )


def load_parameters(policy: agent.Agent, state: dict[str, Any]) -> None:
    """Takes the parameters of a checkpoint."""
    policy.network.load_state_dict(state["learner"]["parameters"])


def as_record(by_task: dict[str, list[float]], version: int) -> dict[str, float]:
    """Of the returns of each task, by its suffix."""
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
