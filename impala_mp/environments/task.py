"""One of several tasks: its observations padded, its number, what it allows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp import nest, specs, tasks, types
from impala_mp.environments import vector


class TaskEnvironment(vector.VectorEnvironment):
    """A vector environment as all tasks of a run have it."""

    def __init__(
        self,
        inner: vector.VectorEnvironment,
        task: int,
        joint: specs.EnvironmentSpec,
    ) -> None:
        """`joint` is what `tasks.joint_spec` gives."""
        self._inner, self.spec = inner, joint
        self.num_envs = inner.num_envs
        count = self.num_envs
        self._rows: types.Nest = nest.map_structure(
            lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), joint.observation
        )
        self._rows[tasks.TASK][:] = task
        if tasks.ALLOWED in self._rows:
            own: specs.DiscreteSpec = inner.spec.action
            self._rows[tasks.ALLOWED][:, : own.num_actions] = True
        corners = nest.map_structure(
            lambda rows, leaf: rows[(slice(None), *map(slice, leaf.shape))],
            self._rows[tasks.OBSERVATION],
            inner.spec.observation,
        )
        self._corners = nest.flatten(corners)  # views of what the task has itself

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

    # All else is the task's own.

    @property
    def unwrapped(self) -> Any:
        return self._inner.unwrapped

    @property
    def num_outside(self) -> int:
        return self._inner.num_outside

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
