"""Evaluates the newest checkpoint of a run, task by task."""

import statistics
import sys
from typing import Any

from impala_mp import agent, evaluator, saved_run, video as video_lib


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
    run = saved_run.SavedRun(path)
    greedy = run.config.evaluation.greedy if greedy is None else greedy
    policy = run.agent(policy)
    by_task = {}
    for task, suffix in enumerate(run.tasks):
        film = video if task == 0 else None
        by_task[suffix] = _play(run, policy, episodes, greedy, task, film)
    every = [each for returns in by_task.values() for each in returns]
    several = by_task if len(by_task) > 1 else {}
    return {
        **evaluator.summarise(every)._asdict(),
        **{f"mean{k}": statistics.fmean(v) for k, v in several.items()},
        "protocol": evaluator.protocol(run.config, greedy),
        "agent_steps": run.agent_steps,
    }


def _play(
    run: saved_run.SavedRun,
    policy: agent.Agent,
    episodes: int,
    greedy: bool,
    task: int,
    video: str | None,
) -> list[float]:
    """The returns of `episodes` games of a task; `video` names a film of the first."""
    settings, said = run.config.evaluation, list[str]()
    count = min(episodes, settings.environments)
    environment = run.environment(count, task, "rgb_array" if video else None)
    film = video_lib.Film(environment) if video else None
    returns = evaluator.evaluate(
        policy,
        environment,
        episodes,
        greedy,
        run.seed(),
        film or (lambda: True),
        settings.max_steps,
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
