"""Shapes and dtypes of all data that crosses a process boundary."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from impala_mp import errors, nest, types


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array, and the bounds that its space declares.

    The bounds are one number, or one per element, flat; () means those of the dtype.
    In observations, `stack_size` pictures may be stacked in the last axis, the newest
    last. A row has the pictures of the row before without the oldest, plus a new one.
    After a reset the oldest pictures may be 0 instead.
    Bounds and stacks are no part of the layout: specs that differ only in these are
    equal.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    low: tuple[float, ...] = dataclasses.field(
        default=(), compare=False, repr=False, kw_only=True
    )
    high: tuple[float, ...] = dataclasses.field(
        default=(), compare=False, repr=False, kw_only=True
    )
    stack_size: int = dataclasses.field(
        default=1, compare=False, repr=False, kw_only=True
    )

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def example(self) -> np.ndarray:
        """Returns an array of this shape and dtype, with allowed values."""
        return np.zeros(self.shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class CategoriesSpec(ArraySpec):
    """An array whose elements are categories, not quantities."""

    num_values: tuple[int, ...]  # per element, flat; values start at `start`
    start: tuple[int, ...]

    def example(self) -> np.ndarray:
        return np.array(self.start, self.dtype).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class DiscreteSpec:
    """Actions 0..num_actions-1; those of the environment begin at `start`."""

    num_actions: int
    start: int = 0
    dtype: np.dtype = np.dtype(np.int64)  # the environment's

    @property
    def array(self) -> ArraySpec:
        return array_spec((), np.int64)


@dataclasses.dataclass(frozen=True)
class MultiDiscreteSpec:
    """Several discrete actions at once, as one array."""

    shape: tuple[int, ...]
    num_actions: tuple[int, ...]  # per element, flat
    start: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.int64)  # the environment's

    @property
    def array(self) -> ArraySpec:
        return array_spec(self.shape, np.int64)


@dataclasses.dataclass(frozen=True)
class MultiBinarySpec:
    """Several binary actions at once, 0 or 1."""

    shape: tuple[int, ...]

    @property
    def array(self) -> ArraySpec:
        return array_spec(self.shape, np.int8)


@dataclasses.dataclass(frozen=True)
class BoxSpec:
    """Real-valued actions; the environment takes them within [low, high].

    If `is_bounded`, trajectories hold the number before tanh and scaling, which loses
    no precision at the bounds.
    """

    shape: tuple[int, ...]
    dtype: np.dtype  # the environment's
    low: tuple[float, ...]  # per element, flat
    high: tuple[float, ...]

    @property
    def array(self) -> ArraySpec:
        return array_spec(self.shape, np.float32)

    @property
    def is_bounded(self) -> bool:
        """True if actions can be scaled to the bounds.

        A bound at the limit of the dtype or of float32 is none, and neither are two
        bounds whose distance exceeds that limit.
        """
        limit = min(float(np.finfo(d).max) for d in (self.dtype, np.float32))
        low, high = np.array(self.low), np.array(self.high)
        sizes = np.array([np.abs(low), np.abs(high), high * 0.5 - low * 0.5])
        return bool((sizes < np.array([limit, limit, 0.5 * limit])[:, None]).all())


ActionSpec = types.Nest  # tuples and dicts of the four specs above


@dataclasses.dataclass(frozen=True)
class EnvironmentSpec:
    """Layout of one environment, without a batch dimension."""

    observation: types.Nest  # of ArraySpec
    action: ActionSpec
    frames_per_step: int  # environment frames per agent step
    action_mask: str = ""  # path of the mask in the observation; "": no mask
    task: str = ""  # path of the task number in the observation; "": a single task
    num_tasks: int = 1
    players: tuple[str, ...] = ("",)  # of a game, each in a column
    waits: bool = False  # players wait or are gone in some rows, which have `acts`
    privileged: str = ""  # path of what only values may depend on; "": nothing


def array_spec(
    shape: Sequence[int],
    dtype: object,
    low: tuple[float, ...] = (),
    high: tuple[float, ...] = (),
    stack_size: int = 1,
) -> ArraySpec:
    sizes = tuple(int(n) for n in shape)
    native = np.dtype(dtype).newbyteorder("=")  # type: ignore
    return ArraySpec(sizes, native, low=low, high=high, stack_size=stack_size)


_LARGE_PIXEL, _LARGE_FEATURE = 20.0, 1000.0


def concern_of_size(spec: ArraySpec, largest: float) -> str:
    """Returns why values up to `largest` are hard to learn from, unnormalised; or "".

    Bytes are divided by their bound, and are never too large.
    """
    is_picture = len(spec.shape) >= 3 or (
        len(spec.shape) == 2 and min(spec.shape) >= 36
    )
    limit = _LARGE_PIXEL if is_picture else _LARGE_FEATURE
    if spec.dtype == np.uint8 or largest <= limit:
        return ""
    what = "pixels" if is_picture else "values"
    cure = "return uint8, or divide them" if is_picture else "rescale them"
    return (
        f"{what} up to {largest:.6g} enter the network as they are, which hardly"
        " learns from numbers far above 1. Set"
        f" config.network.normalise_observations=True, or {cure} in the environment."
    )


# Actions.


def to_environment(spec: ActionSpec) -> Callable[[types.Nest], types.Nest]:
    """Returns a function from the agent's actions to those of the environment.

    Both are nests of tensors [..., *shape], the latter in the environment's dtypes.
    Discrete actions are shifted by their start. A bounded Box is tanh of the number,
    scaled to the bounds. Any other Box is clipped.
    """
    moves = nest.map_structure(_to_environment, spec)

    def convert(action: types.Nest) -> types.Nest:
        return nest.map_structure(lambda move, leaf: move(leaf), moves, action)

    return convert


def _to_environment(spec: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    if isinstance(spec, BoxSpec):
        return _to_box(spec)
    if isinstance(spec, MultiBinarySpec):
        return lambda action: action
    dtype = getattr(torch, spec.dtype.name)
    if not np.any(spec.start):
        return lambda action: action.to(dtype)
    if isinstance(spec, DiscreteSpec):
        return lambda action: (action + spec.start).to(dtype)
    start = torch.tensor(spec.start).reshape(spec.shape)
    return lambda action: (action + start.to(action.device)).to(dtype)


def _to_box(spec: BoxSpec) -> Callable[[torch.Tensor], torch.Tensor]:
    dtype, is_bounded = getattr(torch, spec.dtype.name), spec.is_bounded
    lowest, highest = (
        torch.tensor(bounds, dtype=dtype).reshape(spec.shape)
        for bounds in (spec.low, spec.high)
    )

    def convert(action: torch.Tensor) -> torch.Tensor:
        low, high = lowest.to(action.device), highest.to(action.device)
        moved = action.to(dtype)
        if is_bounded:
            moved = low + (high - low) * (0.5 * (moved.tanh() + 1.0))
        return moved.clamp(low, high)

    return convert


def check_epsilon(spec: ActionSpec, epsilon: float) -> None:
    """Refuses epsilon for actions that have no uniform distribution.

    Raises:
      BadInput: epsilon is not 0 and the actions have a Box.
    """
    if epsilon and any(isinstance(leaf, BoxSpec) for leaf in nest.flatten(spec)):
        raise errors.BadInput(
            f"actors.epsilon ({epsilon:.6g}) cannot explore a Box of actions. It needs"
            " a finite number of actions. Set config.actors.epsilon=0, and explore with"
            " config.actors.temperature or config.loss.entropy_cost."
        )


def check_mask(environment: EnvironmentSpec) -> types.Nest:
    """Checks the action mask; returns the spec of the observation without it.

    Raises:
      BadInput: the mask is missing, or does not fit the actions.
    """
    path, action = environment.action_mask, environment.action
    if not path:
        return environment.observation
    leaves = dict(nest.flatten_with_path(environment.observation))
    if path not in leaves or len(leaves) == 1:
        raise errors.BadInput(
            f"agent.action_mask_key ({path!r}) is no part of the observation, or its"
            f" only one. The parts are {', '.join(map(repr, leaves))}. Set"
            " config.agent.action_mask_key."
        )
    if not isinstance(action, (DiscreteSpec, MultiDiscreteSpec)):
        raise errors.BadInput(
            f"agent.action_mask_key ({path!r}) does not fit the actions ({action})."
            " A mask needs Discrete or MultiDiscrete actions. Leave"
            " config.agent.action_mask_key empty."
        )
    size, needed = leaves[path].example().size, int(np.sum(action.num_actions))
    if size != needed:
        raise errors.BadInput(
            f"agent.action_mask_key ({path!r}) has {size} elements for {needed}"
            " actions. It needs one element per action. Correct the mask in the"
            " environment, or set config.agent.action_mask_key."
        )
    return nest.without(environment.observation, path)


# Observations and trajectories.


def network_inputs(environment: EnvironmentSpec) -> tuple[types.Nest, str]:
    """Returns the layout of what the encoder sees, and its path in the observation.

    That is all but the mask and what only values see; of a player of a game it is the
    part itself, if there is only one.

    Raises:
      BadInput: the mask is missing, or does not fit the actions.
    """
    seen = check_mask(environment)
    if environment.privileged:
        seen = nest.without(seen, environment.privileged)
    if environment.waits and isinstance(seen, dict) and len(seen) == 1:
        return next(iter(seen.items()))[::-1]
    return seen, ""


def pick(spec: types.Nest, observation: types.Nest) -> types.Nest:
    """Returns the parts of an observation that `spec` has; the rest is ignored."""
    if isinstance(spec, dict):
        return {name: pick(part, observation[name]) for name, part in spec.items()}
    if isinstance(spec, tuple):
        return tuple(pick(*each) for each in zip(spec, observation, strict=True))
    return observation


def example_actions(spec: ActionSpec, count: int) -> types.Nest:
    """Returns valid agent actions, arrays [count, ...]."""
    return nest.map_structure(
        lambda leaf: np.zeros((count, *leaf.array.shape), leaf.array.dtype), spec
    )


def example_trajectory(
    environment: EnvironmentSpec, spec: types.Trajectory
) -> types.Trajectory:
    """Returns arrays of `spec`: zeros, except observations that cannot be 0."""
    arrays = nest.map_structure(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)
    for rows in filter(None, (arrays, arrays.before)):
        nest.map_structure(
            lambda leaf, spec: np.copyto(leaf, spec.example()),
            rows.time_step.observation,
            environment.observation,
        )
    return arrays


def actor_critic_output(action: ActionSpec, num_logits: int) -> types.AgentOutput:
    """Returns the output spec of a policy with a baseline, without the batch."""
    return types.AgentOutput(
        action=nest.map_structure(lambda spec: spec.array, action),
        policy_logits=array_spec((num_logits,), np.float32),
        baseline=array_spec((), np.float32),
    )


def trajectory_spec(
    environment: EnvironmentSpec,
    output: types.Nest,
    core_state: tuple[ArraySpec, ...],
    unroll_length: int,
    batch_size: int,
    *,
    num_predecessors: int = 0,
) -> types.Trajectory:
    """Returns the layout of `batch_size` trajectories: a slot (B = E) or a batch.

    Args:
      output: the agent's `output_spec`. Specs here have no batch dimension.
      core_state: the agent's `core_state_spec`.
      num_predecessors: columns of a batch that replay.burn_in fills.
    """
    rows, batch = unroll_length, batch_size

    def stack(spec: ArraySpec, *leading: int) -> ArraySpec:
        shape = (*leading, *spec.shape)
        return array_spec(shape, spec.dtype, stack_size=spec.stack_size)

    scalar = {x: array_spec((), x) for x in ("uint8", "float32", "int32", "bool")}
    numbers = array_spec((types.NUMBERS,), np.float64)
    word = array_spec((batch,), np.int64)
    trajectory = types.Trajectory(
        time_step=types.TimeStep(
            step_type=stack(scalar["uint8"], rows + 1, batch),
            reward=stack(scalar["float32"], rows + 1, batch),
            discount=stack(scalar["float32"], rows + 1, batch),
            observation=nest.map_structure(
                lambda spec: stack(spec, rows + 1, batch), environment.observation
            ),
            acts=stack(scalar["bool"], rows + 1, batch) if environment.waits else (),
        ),
        agent_output=nest.map_structure(lambda spec: stack(spec, rows, batch), output),
        episode_end=types.EpisodeEnd(
            episode_return=stack(scalar["float32"], rows, batch),
            episode_length=stack(scalar["int32"], rows, batch),
            numbers=stack(numbers, rows, batch),
        ),
        parameter_version=array_spec((rows, batch), np.int64),
        core_state=tuple(stack(spec, batch) for spec in core_state),
        header=types.Header(*[word] * len(types.Header._fields)),
    )
    if not num_predecessors:
        return trajectory
    return trajectory._replace(before=_predecessors(trajectory, num_predecessors))


def _predecessors(batch: types.Trajectory, count: int) -> types.Predecessor:
    """Returns the layout of the predecessors of `count` trajectories of a batch."""
    steps, _ = batch.shape

    def rows(leaf: ArraySpec) -> ArraySpec:
        return array_spec((steps, count, *leaf.shape[2:]), leaf.dtype)

    return types.Predecessor(
        time_step=nest.map_structure(rows, batch.time_step),
        action=nest.map_structure(rows, batch.agent_output.action),
        core_state=tuple(
            array_spec((count, *leaf.shape[1:]), leaf.dtype)
            for leaf in batch.core_state
        ),
        there=array_spec((count,), np.bool_),
    )
