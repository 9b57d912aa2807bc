"""Shapes and dtypes of everything that crosses a process boundary."""

import dataclasses
from typing import Any

import gymnasium
import numpy as np

from impala_mp import errors, nest, types


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class DiscreteSpec:
    """Actions 0..num_actions-1; the environment adds `start` of its space itself."""

    num_actions: int

    @property
    def array(self) -> ArraySpec:
        return array_spec((), np.int64)


@dataclasses.dataclass(frozen=True)
class EnvironmentSpec:
    """What an agent has to know of one environment (no batch dimension)."""

    observation: types.Nest  # of ArraySpec
    action: DiscreteSpec
    frames_per_step: int  # environment frames of one agent step


def array_spec(shape: tuple[int, ...], dtype: object) -> ArraySpec:
    return ArraySpec(tuple(int(n) for n in shape), np.dtype(dtype))  # type: ignore


def observation_spec(space: gymnasium.Space[Any]) -> ArraySpec:
    """The layout of one observation.

    Raises:
      BadInput: the space is not supported.
    """
    if isinstance(space, gymnasium.spaces.Box) and space.dtype.kind in "buif":
        if space.dtype in (np.uint16, np.uint32, np.uint64, np.longdouble):
            raise errors.BadInput(
                f"observation dtype {space.dtype} has no torch counterpart: cast it in"
                " the environment, for example to float32."
            )
        return array_spec(space.shape, space.dtype)
    raise errors.BadInput(
        f"observation space {space} is not supported: use a Box (for example through"
        " gymnasium.wrappers.FlattenObservation)."
    )


def action_spec(space: gymnasium.Space[Any]) -> DiscreteSpec:
    """The layout of one action.

    Raises:
      BadInput: the space is not supported.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return DiscreteSpec(int(space.n))
    raise errors.BadInput(
        f"action space {space} is not supported: use a Discrete space (for example by"
        " discretising actions in a gymnasium.ActionWrapper)."
    )


def trajectory_spec(
    environment: EnvironmentSpec,
    num_logits: int,
    core_state: tuple[ArraySpec, ...],
    unroll_length: int,
    batch_size: int,
) -> types.Trajectory:
    """The layout of `batch_size` trajectories: of a slot (B = E) or of a batch.

    Args:
      core_state: specs without the batch dimension.
    """
    rows, batch = unroll_length, batch_size

    def stack(spec: ArraySpec, *leading: int) -> ArraySpec:
        return array_spec((*leading, *spec.shape), spec.dtype)

    scalar = {name: array_spec((), name) for name in ("uint8", "float32", "int32")}
    word = array_spec((batch,), np.int64)
    return types.Trajectory(
        time_step=types.TimeStep(
            step_type=stack(scalar["uint8"], rows + 1, batch),
            reward=stack(scalar["float32"], rows + 1, batch),
            discount=stack(scalar["float32"], rows + 1, batch),
            observation=nest.map_structure(
                lambda spec: stack(spec, rows + 1, batch), environment.observation
            ),
        ),
        agent_output=types.AgentOutput(
            action=stack(environment.action.array, rows, batch),
            policy_logits=array_spec((rows, batch, num_logits), np.float32),
            baseline=stack(scalar["float32"], rows, batch),
        ),
        episode_end=types.EpisodeEnd(
            episode_return=stack(scalar["float32"], rows, batch),
            episode_length=stack(scalar["int32"], rows, batch),
        ),
        parameter_version=array_spec((rows, batch), np.int64),
        core_state=tuple(stack(spec, batch) for spec in core_state),
        header=types.Header(word, word, word, word),
    )
