"""Plays episodes of a checkpoint, moment by moment, for a spectator."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import rich.console
import torch

from impala_mp import errors, nest, seeding, specs, types
from impala_mp.environments import bad_data, vector
from impala_mp.evaluation import saved_run, spectators
from impala_mp.networks import agent

_DELAY_SECS = 0.05  # on a terminal or in a window


def play(
    path: str,
    episodes: int,
    greedy: bool | None,
    window: bool,
    delay_secs: float | None,
    console: rich.console.Console | None = None,
    sleep: Callable[[float], None] = time.sleep,
    trust: bool = False,
    which: str | int = "newest",
    policy: str = "",
) -> None:
    """Shows `episodes` of each task of the run in `path`.

    Args:
      greedy: None: as in evaluations.
      delay_secs: between two moments; None: the spectator's default.
      sleep: waits for a number of seconds.
      trust: True loads code that this user has not trained.
      which: newest, best, or the update of a checkpoint.
      policy: member of a population.

    Raises:
      BadInput: there is no run, no valid checkpoint, or no display for a window.
    """
    run = saved_run.SavedRun(path, trust, which=which, policy=policy)
    run.check_plays_alone(policy)
    if run.num_members > 1:
        raise errors.BadInput(
            f"{path} has the members {', '.join(run.policies)}. Name one of them with"
            " --policy."
        )
    greedy = run.config.evaluation.greedy if greedy is None else greedy
    console = console or rich.console.Console()
    if delay_secs is None:
        delay_secs = _DELAY_SECS if window or console.is_terminal else 0.0
    with (
        contextlib.closing(_all(run, episodes, greedy)) as moments,
        _spectator(window, delay_secs, console) as spectator,
    ):
        for moment in moments:
            if not spectator.show(moment):
                break
            if not window:  # a window waits by itself
                sleep(delay_secs)


def _spectator(
    window: bool, delay_secs: float, console: rich.console.Console
) -> spectators.Spectator:
    if window:
        return spectators.open_window(delay_secs)
    if console.is_terminal:
        return spectators.Terminal(console)
    return spectators.Lines(console)


def _all(
    run: saved_run.SavedRun, episodes: int, greedy: bool
) -> Generator[spectators.Moment]:
    """Yields the moments of `episodes` of each task."""
    agents = run.agents()
    for task, suffix in enumerate(run.tasks):
        environment = _open(run, task)
        try:
            for moment in _moments(run, agents, environment, greedy):
                yield moment._replace(task=suffix.lstrip("/"))
                if moment.over and moment.episode == episodes:
                    break
        except bad_data.BadData as error:
            raise errors.BadInput(
                f"{run.config.environment.id} returned bad data: {error}. Run"
                " impala-train --check to see what is wrong with it."
            ) from error
        finally:
            environment.close()


def _open(run: saved_run.SavedRun, task: int) -> vector.VectorEnvironment:
    """Makes one copy, with pictures if it can draw them."""
    environment = run.environment(1, task)
    if not environment.draws:
        return environment
    environment.close()
    return run.environment(1, task, render_mode="rgb_array")


class _Camera:
    """Source of pictures; once there are none, `without` is the reason."""

    def __init__(self, environment: vector.VectorEnvironment) -> None:
        self._environment = environment
        self._draws, self.without = environment.draws, ""

    def __call__(self) -> np.ndarray | None:
        if not self._draws:
            return None
        try:
            return np.array(self._environment.frame())
        except errors.BadInput as error:
            self._draws, self.without = False, str(error)
            return None


class _Mind:
    """One policy that acts, and what it thinks of its players."""

    def __init__(
        self,
        policy: agent.Agent,
        num_columns: int,
        to_environment: Callable[[types.Nest], types.Nest],
        restore: saved_run.Restorer,
        greedy: bool,
        generator: torch.Generator,
    ) -> None:
        self._policy, self._to_environment = policy, to_environment
        self._restore, self._greedy, self._generator = restore, greedy, generator
        self._state = policy.initial_state(num_columns)

    @torch.inference_mode()
    def act(self, row: types.TimeStep) -> types.Nest:
        """Returns the actions of one row, arrays."""
        self._outputs, *_ = self._policy.look(row, self._state)
        self._output, self._state = self._policy.step(
            row, self._state, greedy=self._greedy, generator=self._generator
        )
        return nest.map_structure(torch.Tensor.numpy, self._output.action)

    def part(self, column: int, player: str) -> spectators.Part:
        """Returns what it does as `player`, and expects; nothing of the rewards."""
        return spectators.Part(
            player=player,
            elements=self._policy.describe(self._restore(self._outputs[column])),
            action=nest.map_structure(
                lambda leaf: leaf[column].numpy().copy(),
                self._to_environment(self._output.action),
            ),
            acts=True,
            value=float(self._restore(self._output.baseline[column])),
            reward=0.0,
            episode_return=0.0,
        )


def _moments(
    run: saved_run.SavedRun,
    agents: Sequence[agent.Agent],
    environment: vector.VectorEnvironment,
    greedy: bool,
) -> Iterator[spectators.Moment]:
    """Yields the moments of one episode after the other, without end."""
    generator = torch.Generator().manual_seed(seeding.torch_seed(run.seed()))
    count, camera = environment.num_envs, _Camera(environment)
    minds = [
        _Mind(
            policy,
            columns,
            specs.to_environment(spec.action),
            saved_run.restorer(config),
            greedy,
            generator,
        )
        for policy, columns, spec, config in zip(
            agents,
            environment.num_columns,
            environment.specs,
            run.configs(),
            strict=True,
        )
    ]
    time_step = environment.reset(seeding.environment_seeds(run.seed(), count))
    episode = step = 0
    over = True
    while True:
        if over:
            episode, step, returns = episode + 1, 0, np.zeros(count)
        returns += time_step.reward
        over = bool((time_step.step_type == types.StepType.LAST).all())
        rows = environment.split(nest.tensors(time_step))
        actions = tuple(mind.act(row) for mind, row in zip(minds, rows, strict=True))
        picture = camera()
        yield spectators.Moment(
            task="",
            episode=episode,
            step=step,
            picture=picture,
            without=camera.without,
            observation=nest.map_structure(_first, time_step.observation),
            parts=[
                minds[policy]
                .part(column, name)
                ._replace(
                    acts=_acts(time_step, i),
                    reward=float(time_step.reward[i]),
                    episode_return=float(returns[i]),
                )
                for i, (name, (policy, column)) in enumerate(
                    zip(environment.players, environment.places, strict=True)
                )
            ],
            over=over,
        )
        time_step, _ = environment.step(actions if len(actions) > 1 else actions[0])
        step += 1


def _acts(time_step: types.TimeStep, column: int) -> bool:
    if isinstance(time_step.acts, tuple):
        return bool(time_step.step_type[column] != types.StepType.LAST)
    return bool(time_step.acts[column])


def _first(rows: types.Nest) -> np.ndarray:
    """Copies the first row of an array [B, ...]."""
    return np.array(rows[0])
