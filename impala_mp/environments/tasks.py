"""One of several tasks: padded observations, the task number, an action mask."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp import errors, nest, specs, types
from impala_mp.environments import episode_numbers, vector

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
        if part.frames_per_step != first.frames_per_step:
            raise _different(ids[0], name, "frames per step", first, part)
    observation = first.observation
    for name, part in zip(ids[1:], parts[1:], strict=True):
        try:
            observation = nest.map_structure(_larger, observation, part.observation)
        except ValueError as error:
            raise _different(ids[0], name, "observations", first, part) from error
    merged = {
        OBSERVATION: observation,
        TASK: specs.CategoriesSpec((), np.dtype(np.int64), (len(ids),), (0,)),
    }
    action = first.action
    if any(part.action != action for part in parts):
        action = _largest_action(ids, parts)
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


def _larger(one: specs.ArraySpec, other: specs.ArraySpec) -> specs.ArraySpec:
    """Returns the smallest array that both fit into.

    Raises:
      ValueError: there is none.
    """
    plain = type(one) is type(other) is specs.ArraySpec
    if one == other and not plain:
        return one
    if not plain or one.dtype != other.dtype or len(one.shape) != len(other.shape):
        raise ValueError("different kinds of arrays")
    sizes = tuple(map(max, one.shape, other.shape))
    # Stacks of the same layout stay stacks: the padding is 0.
    same = one.stack_size == other.stack_size and one.shape[-1:] == other.shape[-1:]
    stack_size = one.stack_size if same else 1
    bounds: tuple[tuple[float, ...], tuple[float, ...]] = (), ()
    if one.shape == other.shape and (one.low, one.high) == (other.low, other.high):
        bounds = one.low, one.high
    elif one.low and other.low:
        low = min(0.0, *one.low, *other.low)
        high = max(0.0, *one.high, *other.high)
        bounds = (low,), (high,)
    return specs.array_spec(sizes, one.dtype, *bounds, stack_size)


def _largest_action(
    ids: Sequence[str], parts: Sequence[specs.EnvironmentSpec]
) -> specs.DiscreteSpec:
    for name, part in zip(ids, parts, strict=True):
        if not isinstance(part.action, specs.DiscreteSpec):
            raise _different(ids[0], name, "actions", parts[0], part)
    return specs.DiscreteSpec(max(part.action.num_actions for part in parts))


class TaskEnvironment(vector.VectorEnvironment):
    """Vector environment of one task, with the joint spec of all tasks of a run."""

    def __init__(
        self,
        inner: vector.VectorEnvironment,
        task: int,
        joint: specs.EnvironmentSpec,
    ) -> None:
        """Takes the task's environment and number, and the spec of `joint_spec`."""
        self._inner, self.spec = inner, joint
        self.num_envs = inner.num_envs
        count = self.num_envs
        self._rows: types.Nest = nest.map_structure(
            lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), joint.observation
        )
        self._rows[TASK][:] = task
        if ALLOWED in self._rows:
            own: specs.DiscreteSpec = inner.spec.action
            self._rows[ALLOWED][:, : own.num_actions] = True
        corners = nest.map_structure(
            lambda rows, leaf: rows[(slice(None), *map(slice, leaf.shape))],
            self._rows[OBSERVATION],
            inner.spec.observation,
        )
        self._corners = nest.flatten(corners)  # views of the parts without padding

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
