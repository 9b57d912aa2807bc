"""One of several tasks: padded observations, the task number, an action mask."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp import errors, nest, specs, types
from impala_mp.environments import episode_numbers, joint, vector

OBSERVATION, TASK, ALLOWED = "observation", "task", "allowed"  # keys


def joint_spec(
    ids: Sequence[str], parts: Sequence[specs.EnvironmentSpec]
) -> specs.EnvironmentSpec:
    """Returns one spec for all the environments `ids`.

    Raises:
      BadInput: they have too little in common.
    """
    first = parts[0]
    for name, part in zip(ids, parts, strict=True):
        if len(part.players) > 1:
            raise errors.BadInput(
                f"environment.id names {len(ids)} tasks, and {name} is a game of"
                f" {len(part.players)} players. Tasks have a single player each. Name"
                " one environment."
            )
        if part.frames_per_step != first.frames_per_step:
            raise _different(ids[0], name, "frames per step", first, part)
    for name, part in zip(ids, parts, strict=True):
        try:
            joint.observation([first.observation, part.observation])
        except ValueError as error:
            raise _different(ids[0], name, "observations", first, part) from error
        try:
            joint.action([first.action, part.action])
        except ValueError as error:
            raise _different(ids[0], name, "actions", first, part) from error
    observation = joint.observation([part.observation for part in parts])
    action = joint.action([part.action for part in parts])
    merged = {
        OBSERVATION: observation,
        TASK: specs.CategoriesSpec((), np.dtype(np.int64), (len(ids),), (0,)),
    }
    if any(part.action != first.action for part in parts):
        merged[ALLOWED] = specs.array_spec((action.num_actions,), np.bool_)
    return specs.EnvironmentSpec(
        merged,
        action,
        first.frames_per_step,
        action_mask=ALLOWED if ALLOWED in merged else "",
        task=TASK,
        num_tasks=len(ids),
    )


def _different(
    one: str, other: str, what: str, a: specs.EnvironmentSpec, b: specs.EnvironmentSpec
) -> errors.BadInput:
    return errors.BadInput(
        f"environment.id names {one} and {other}, which differ in {what} ({a} and {b})."
        " Tasks of one run must be padded to the same layout. Choose tasks that can."
    )


class TaskEnvironment(vector.VectorEnvironment):
    """Vector environment of one task, with the joint spec of all tasks of a run."""

    def __init__(
        self,
        inner: vector.VectorEnvironment,
        task: int,
        spec: specs.EnvironmentSpec,
    ) -> None:
        """Takes the task's environment and number, and the spec of `joint_spec`."""
        self._inner, self.specs = inner, (spec,)
        self.num_envs = inner.num_envs
        count = self.num_envs
        self._rows: types.Nest = nest.map_structure(
            lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), spec.observation
        )
        self._rows[TASK][:] = task
        if ALLOWED in self._rows:
            own: specs.DiscreteSpec = inner.spec.action
            self._rows[ALLOWED][:, : own.num_actions] = True
        corners = joint.corners(self._rows[OBSERVATION], inner.spec.observation)
        self._corners = nest.flatten(corners)

    def _padded(self, time_step: types.TimeStep) -> types.TimeStep:
        leaves = nest.flatten(time_step.observation)
        for corner, leaf in zip(self._corners, leaves, strict=True):
            corner[...] = leaf
        return time_step._replace(observation=self._rows)

    def reset(self, seeds: Sequence[int]) -> types.TimeStep:
        return self._padded(self._inner.reset(seeds))

    def step(self, action: types.Nest) -> tuple[types.TimeStep, types.EpisodeEnd]:
        time_step, episode_end = self._inner.step(action)
        return self._padded(time_step), episode_end

    # The rest is passed to the task's environment.

    @property
    def unwrapped(self) -> Any:
        return self._inner.unwrapped

    @property
    def num_outside(self) -> int:
        return self._inner.num_outside

    @property  # type: ignore[override]
    def numbers(self) -> episode_numbers.EpisodeNumbers:
        return self._inner.numbers

    @numbers.setter
    def numbers(self, numbers: episode_numbers.EpisodeNumbers) -> None:
        self._inner.numbers = numbers

    def seed_argument(self, seeds: Sequence[int]) -> Any:
        return self._inner.seed_argument(seeds)

    @property
    def draws(self) -> bool:
        return self._inner.draws

    def frame(self) -> np.ndarray:
        return self._inner.frame()

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._inner.load_state_dict(state)

    def close(self) -> None:
        self._inner.close()
