"""Evaluates the newest checkpoint of a run, task by task."""

import statistics
import sys
from typing import Any

from impala_mp import (
    agent,
    checkpoint,
    environments,
    errors,
    evaluator,
    seeding,
    tasks,
    video as video_lib,
    workdir,
)


def evaluate(
    path: str,
    episodes: int,
    greedy: bool | None = None,
    policy: agent.Agent | None = None,
    video: str | None = None,
) -> dict[str, Any]:
    """Evaluates the newest checkpoint in `path`; the statistics by name.

    Raises:
      BadInput: there is no run, or no sound checkpoint.
      NoGameEnded: and so there are no statistics.
    """
    if video:
        video_lib.check_name(video)
    config = workdir.read_config(path)
    greedy = config.evaluation.greedy if greedy is None else greedy
    state = _newest(path)
    policy = policy or agent.make(config, environments.probe(config.environment))
    evaluator.load_parameters(policy, state)
    by_task = {}
    for task, suffix in enumerate(tasks.suffixes(config.environment)):
        film = video if task == 0 else None
        by_task[suffix] = _play(config, policy, episodes, greedy, task, film)
    every = [each for returns in by_task.values() for each in returns]
    several = by_task if len(by_task) > 1 else {}
    return {
        **evaluator.summarise(every)._asdict(),
        **{f"mean{k}": statistics.fmean(v) for k, v in several.items()},
        "protocol": evaluator.protocol(config, greedy),
        "agent_steps": state["learner"]["agent_steps"],
    }


def _play(
    config: Any,
    policy: agent.Agent,
    episodes: int,
    greedy: bool,
    task: int,
    video: str | None,
) -> list[float]:
    """The returns of `episodes` games of a task; `video` names a film of the first."""
    environment = environments.make(
        config.environment,
        min(episodes, config.evaluation.environments),
        training=False,
        render_mode="rgb_array" if video else None,
        task=task,
    )
    seed = seeding.sequence(config.seed, "evaluator")
    film = video_lib.Film(environment) if video else None
    said: list[str] = []
    returns = evaluator.evaluate(
        policy,
        environment,
        episodes,
        greedy,
        seed,
        film or (lambda: True),
        config.evaluation.max_steps,
        said.append,
    )
    environment.close()
    if film and video:
        film.save(video)
    if not returns:
        raise evaluator.NoGameEnded(f"for no game has ended. {' '.join(said)}")
    for sentence in said:
        print(sentence, file=sys.stderr)
    return returns


def _newest(path: str) -> dict[str, Any]:
    folder = workdir.Workdir(path).checkpoints
    try:
        state = checkpoint.load_newest(
            folder, lambda text: print(text, file=sys.stderr)
        )
    except checkpoint.Damaged as error:
        raise errors.BadInput(str(error)) from error
    if state is None:
        raise errors.BadInput(
            f"{path} has no checkpoint yet: train first, or name another --workdir."
        )
    return state
