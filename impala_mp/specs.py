"""Shapes and dtypes of everything that crosses a process boundary."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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

    def example(self) -> np.ndarray:
        """An array that fits."""
        return np.zeros(self.shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class CategoriesSpec(ArraySpec):
    """An array whose elements are names of categories, not quantities."""

    num_values: tuple[int, ...]  # of each element, flat; values start at `start`
    start: tuple[int, ...]

    def example(self) -> np.ndarray:
        return np.array(self.start, self.dtype).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class DiscreteSpec:
    """Actions 0..num_actions-1; the environment's own begin at `start`."""

    num_actions: int
    start: int = 0

    @property
    def array(self) -> ArraySpec:
        return array_spec((), np.int64)


@dataclasses.dataclass(frozen=True)
class MultiDiscreteSpec:
    """Several discrete actions at once, as one array."""

    shape: tuple[int, ...]
    num_actions: tuple[int, ...]  # of each element, flat
    start: tuple[int, ...]

    @property
    def array(self) -> ArraySpec:
        return array_spec(self.shape, np.int64)


@dataclasses.dataclass(frozen=True)
class MultiBinarySpec:
    """Several yes-or-no actions at once, 0 or 1."""

    shape: tuple[int, ...]

    @property
    def array(self) -> ArraySpec:
        return array_spec(self.shape, np.int8)


@dataclasses.dataclass(frozen=True)
class BoxSpec:
    """Real numbers; the environment's own lie within [low, high].

    Where all bounds are finite, what flows is the number before tanh brings it there:
    nothing is lost at the bounds.
    """

    shape: tuple[int, ...]
    dtype: np.dtype  # the environment's
    low: tuple[float, ...]  # of each element, flat
    high: tuple[float, ...]

    @property
    def array(self) -> ArraySpec:
        return array_spec(self.shape, np.float32)

    @property
    def is_bounded(self) -> bool:
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())


ActionSpec = types.Nest  # of the four above, in tuples and dicts


@dataclasses.dataclass(frozen=True)
class EnvironmentSpec:
    """What an agent has to know of one environment (no batch dimension)."""

    observation: types.Nest  # of ArraySpec
    action: ActionSpec
    frames_per_step: int  # environment frames of one agent step
    action_mask: str = ""  # path in the observation of what is allowed; "": everything
    num_tasks: int = 1


class Bounds(NamedTuple):
    """What the values of an observation's leaf must lie within."""

    low: np.ndarray
    high: np.ndarray
    strict: bool  # outside of them there is nothing that could be learned from


def array_spec(shape: Sequence[int], dtype: object) -> ArraySpec:
    return ArraySpec(tuple(int(n) for n in shape), np.dtype(dtype))  # type: ignore


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(values).flat)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(values).flat)


# Observations.


def observation_spec(
    space: gymnasium.Space[Any], ignored: Sequence[str] = (), path: str = ""
) -> types.Nest:
    """The layout of one observation: a nest of ArraySpec.

    Args:
      ignored: slash-separated paths of Dict entries that are left out.

    Raises:
      BadInput: the space, or a part of it, is not supported.
    """
    if isinstance(space, gymnasium.spaces.Dict):
        return _dict_spec(space, ignored, path)
    if isinstance(space, gymnasium.spaces.Tuple):
        if not space.spaces:
            raise _empty("observation", space, path)
        return tuple(
            observation_spec(part, ignored, _join(path, str(i)))
            for i, part in enumerate(space.spaces)
        )
    return _leaf_spec(space, path)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _dict_spec(
    space: gymnasium.spaces.Dict, ignored: Sequence[str], path: str
) -> dict[str, types.Nest]:
    for name in space.spaces:
        is_ignored = _join(path, str(name)) in ignored
        if not is_ignored and (not isinstance(name, str) or "/" in name):
            raise errors.BadInput(
                f"observation space {_named(space, path)} has the key {name!r}, and a"
                " path of keys is written with slashes: use strings without a slash."
            )
    kept = {
        name: observation_spec(part, ignored, _join(path, str(name)))
        for name, part in space.spaces.items()
        if _join(path, str(name)) not in ignored
    }
    if not kept:
        raise errors.BadInput(
            f"observation space {_named(space, path)} has nothing left in it: shorten"
            " config.environment.ignored."
        )
    return kept


def _named(space: gymnasium.Space[Any], path: str) -> str:
    return f"{space} at {path!r}" if path else str(space)


def _empty(what: str, space: gymnasium.Space[Any], path: str) -> errors.BadInput:
    return errors.BadInput(
        f"{what} space {_named(space, path)} has nothing in it: leave it out of the"
        " space"
        f"{' or with config.environment.ignored' if what == 'observation' else ''}."
    )


def _leaf_spec(space: gymnasium.Space[Any], path: str) -> ArraySpec:
    if 0 in (space.shape or ()):
        raise _empty("observation", space, path)
    if isinstance(space, gymnasium.spaces.Box) and space.dtype.kind in "buif":
        if space.dtype == np.longdouble:
            raise errors.BadInput(
                f"observation dtype {space.dtype} of {_named(space, path)} has no torch"
                " counterpart: cast it in the environment, for example to float32."
            )
        return array_spec(space.shape, space.dtype)
    if isinstance(space, gymnasium.spaces.Discrete):
        return CategoriesSpec((), space.dtype, (int(space.n),), (int(space.start),))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        values, start = _integers(space.nvec), _integers(space.start)
        return CategoriesSpec(space.shape, space.dtype, values, start)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return array_spec(space.shape, space.dtype)
    cure = (
        f"leave it out with config.environment.ignored='({path!r},)', or turn it into"
        " numbers in the environment"
        if path
        else "use numbers (for example through gymnasium.wrappers.FlattenObservation)"
    )
    raise errors.BadInput(
        f"observation space {_named(space, path)} is not supported: {cure}."
    )


def pick(spec: types.Nest, observation: types.Nest) -> types.Nest:
    """What of an observation `spec` has: the rest is ignored."""
    if isinstance(spec, dict):
        return {name: pick(part, observation[name]) for name, part in spec.items()}
    if isinstance(spec, tuple):
        return tuple(pick(*each) for each in zip(spec, observation, strict=True))
    return observation


def space_at(space: gymnasium.Space[Any], path: str) -> gymnasium.Space[Any]:
    """The part of a Dict or Tuple at a slash-separated path; "" is all of it."""
    for name in path.split("/") if path else ():
        parts: Any = space
        is_tuple = isinstance(space, gymnasium.spaces.Tuple)
        space = parts[int(name)] if is_tuple else parts[name]
    return space


def check_ignored(
    ignored: Sequence[str], spaces: Sequence[gymnasium.Space[Any]]
) -> None:
    """Refuses, as BadInput, a path to be ignored that none of the `spaces` has."""
    entries = {entry for space in spaces for entry in _entries(space)}
    for path in ignored:
        if path not in entries:
            raise errors.BadInput(
                f"environment.ignored has {path!r}, which is no entry of a Dict in the"
                f" observations (of {sorted(entries)}): set config.environment.ignored."
            )


def _entries(space: gymnasium.Space[Any], path: str = "") -> Iterator[str]:
    """The paths of all entries of Dicts."""
    is_dict = isinstance(space, gymnasium.spaces.Dict)
    parts: Any = getattr(space, "spaces", ())
    for name, part in parts.items() if is_dict else enumerate(parts):
        own = _join(path, str(name))
        if is_dict:
            yield own
        yield from _entries(part, own)


def observation_bounds(space: gymnasium.Space[Any]) -> Bounds | None:
    """The bounds of a leaf; None if it can hold nothing else."""
    if isinstance(space, gymnasium.spaces.Discrete):
        low = np.asarray(space.start)
        return Bounds(low, low + space.n - 1, strict=True)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return Bounds(space.start, space.start + space.nvec - 1, strict=True)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return Bounds(np.zeros((), space.dtype), np.ones((), space.dtype), strict=True)
    if not isinstance(space, gymnasium.spaces.Box):
        return None
    if space.dtype.kind == "b":
        return None
    info = (np.finfo if space.dtype.kind == "f" else np.iinfo)(space.dtype)
    if (space.low <= info.min).all() and (space.high >= info.max).all():
        return None
    return Bounds(space.low, space.high, strict=False)


# Actions.


def action_spec(space: gymnasium.Space[Any], path: str = "") -> ActionSpec:
    """The layout of one action: a nest of the action specs.

    Raises:
      BadInput: the space, or a part of it, is not supported.
    """
    if 0 in (space.shape or ()) or not getattr(space, "spaces", True):
        raise _empty("action", space, path)
    if isinstance(space, gymnasium.spaces.Dict):
        return {
            name: action_spec(part, _join(path, str(name)))
            for name, part in space.spaces.items()
        }
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(
            action_spec(part, _join(path, str(i))) for i, part in enumerate(space)
        )
    if isinstance(space, gymnasium.spaces.Discrete):
        return DiscreteSpec(int(space.n), int(space.start))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        shape = tuple(int(n) for n in space.shape)
        return MultiDiscreteSpec(shape, _integers(space.nvec), _integers(space.start))
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return MultiBinarySpec(tuple(int(n) for n in space.shape))
    if isinstance(space, gymnasium.spaces.Box):
        return _box_spec(space, path)
    raise errors.BadInput(
        f"action space {_named(space, path)} is not supported: use Discrete,"
        " MultiDiscrete, MultiBinary, a Box of floats, or a Tuple or Dict of these."
    )


def _box_spec(space: gymnasium.spaces.Box, path: str) -> BoxSpec:
    named = f"action space {_named(space, path)}"
    if space.dtype.kind != "f" or space.dtype == np.longdouble:
        raise errors.BadInput(
            f"{named} is of {space.dtype}: use a Box of float32, or MultiDiscrete for"
            " whole numbers."
        )
    if (space.low >= space.high).any():
        where = np.argwhere(space.low >= space.high)[0].tolist()
        raise errors.BadInput(
            f"{named} leaves no choice at {where}, where its bounds meet: leave that"
            " element out of the space."
        )
    shape = tuple(int(n) for n in space.shape)
    return BoxSpec(shape, space.dtype, _floats(space.low), _floats(space.high))


def example_actions(spec: ActionSpec, count: int) -> types.Nest:
    """Arrays [count, ...] of actions of the agent that are allowed."""
    return nest.map_structure(
        lambda leaf: np.zeros((count, *leaf.array.shape), leaf.array.dtype), spec
    )


def example_trajectory(
    environment: EnvironmentSpec, spec: types.Trajectory
) -> types.Trajectory:
    """Arrays of `spec`, of zeros but for observations that cannot be 0."""
    arrays = nest.map_structure(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)
    nest.map_structure(
        lambda rows, leaf: np.copyto(rows, leaf.example()),
        arrays.time_step.observation,
        environment.observation,
    )
    return arrays


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
            action=nest.map_structure(
                lambda spec: stack(spec.array, rows, batch), environment.action
            ),
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
