"""Specs, bounds and checks of Gymnasium spaces, for observations and actions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.environments import bad_data


class Bounds(NamedTuple):
    """Bounds of the values of one leaf of an observation."""

    low: np.ndarray
    high: np.ndarray
    strict: bool  # values outside cannot be learned from


# Observations.


def observation_spec(
    space: gymnasium.Space[Any],
    ignored: Sequence[str] = (),
    path: str = "",
    entry: str = "",
) -> types.Nest:
    """Returns the layout of one observation: a nest of ArraySpec.

    Args:
      ignored: slash-separated paths of Dict entries to leave out.
      path: of this space in the whole observation.
      entry: path of the smallest Dict entry around it that can be left out; "": none.

    Raises:
      BadInput: the space, or a part of it, is not supported.
    """
    cure = ""
    if entry:
        cure = f'Set config.environment.ignored="{(*ignored, entry)}", or '
    if isinstance(space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple)):
        if not space.spaces:
            raise _empty("observation", space, path, cure)
        if isinstance(space, gymnasium.spaces.Dict):
            return _dict_spec(space, ignored, path, entry)
        return tuple(
            observation_spec(part, ignored, _join(path, str(i)), entry)
            for i, part in enumerate(space.spaces)
        )
    return _leaf_spec(space, path, cure)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _dict_spec(
    space: gymnasium.spaces.Dict, ignored: Sequence[str], path: str, entry: str
) -> dict[str, types.Nest]:
    kept = {
        name: part
        for name, part in space.spaces.items()
        if _join(path, str(name)) not in ignored
    }
    for name in kept:
        if not isinstance(name, str) or "/" in name:
            raise errors.BadInput(
                f"observation space {_named(space, path)} has the key {name!r}. Slashes"
                " separate the keys of a path. Use strings without a slash."
            )
    if not kept:
        raise errors.BadInput(
            f"observation space {_named(space, path)} has only ignored entries. At"
            " least one must remain. Shorten config.environment.ignored."
        )
    return {
        name: observation_spec(
            part, ignored, own := _join(path, name), own if len(kept) > 1 else entry
        )
        for name, part in kept.items()
    }


def _named(space: gymnasium.Space[Any], path: str) -> str:
    return f"{space} at {path!r}" if path else str(space)


def _empty(
    what: str, space: gymnasium.Space[Any], path: str, cure: str = ""
) -> errors.BadInput:
    return errors.BadInput(
        f"{what} space {_named(space, path)} is empty. It needs at least one element."
        f" {cure}{'remove' if cure else 'Remove'} it from the space."
    )


def _leaf_spec(space: gymnasium.Space[Any], path: str, cure: str) -> specs.ArraySpec:
    if 0 in (space.shape or ()):
        raise _empty("observation", space, path, cure)
    if isinstance(space, gymnasium.spaces.Box) and space.dtype.kind in "buif":
        if space.dtype == np.longdouble:
            raise errors.BadInput(
                f"observation dtype {space.dtype} of {_named(space, path)} has no torch"
                " counterpart. Cast it in the environment, for example to float32."
            )
        return specs.array_spec(
            space.shape, space.dtype, _collapsed(space.low), _collapsed(space.high)
        )
    if isinstance(space, gymnasium.spaces.Discrete):
        return specs.CategoriesSpec(
            (),
            space.dtype.newbyteorder("="),
            (int(space.n),),
            (int(space.start),),
        )
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        values, start = _integers(space.nvec), _integers(space.start)
        dtype = space.dtype.newbyteorder("=")
        return specs.CategoriesSpec(space.shape, dtype, values, start)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return specs.array_spec(space.shape, space.dtype, (0.0,), (1.0,))
    other = "Use numbers (for example through gymnasium.wrappers.FlattenObservation)"
    if cure:
        other = f"{cure}turn it into numbers in the environment"
    raise errors.BadInput(
        f"observation space {_named(space, path)} is not supported. {other}."
    )


def space_at(space: gymnasium.Space[Any], path: str) -> gymnasium.Space[Any]:
    """Returns the part of a space at a slash-separated path; "" is the whole space."""
    for name in path.split("/") if path else ():
        parts: Any = space
        is_tuple = isinstance(space, gymnasium.spaces.Tuple)
        space = parts[int(name)] if is_tuple else parts[name]
    return space


def check_ignored(
    ignored: Sequence[str], spaces: Sequence[gymnasium.Space[Any]]
) -> None:
    """Raises BadInput for an ignored path that none of the `spaces` has."""
    entries = {entry for space in spaces for entry in _entries(space)}
    for path in ignored:
        if path not in entries:
            raise errors.BadInput(
                f"environment.ignored has {path!r}, which is no entry of a Dict in the"
                f" observations. The entries are {sorted(entries)}. Set"
                " config.environment.ignored."
            )


def check_privileged(path: str, observation: types.Nest) -> None:
    """Raises BadInput unless a path is that of one array in a Dict beside others."""
    part = observation
    for name in path.split("/"):
        part = part.get(name) if isinstance(part, dict) else None
    arrays = [name for name, _ in nest.flatten_with_path(observation)]
    if not isinstance(part, specs.ArraySpec) or len(arrays) == 1:
        raise errors.BadInput(
            f"environment.privileged ({path!r}) is no array in a Dict of observations"
            f" beside others. The arrays are {[name for name in arrays if name]}. Set"
            " config.environment.privileged to one of them, or leave it empty."
        )


def _entries(space: gymnasium.Space[Any], path: str = "") -> Iterator[str]:
    """Yields the paths of all entries of Dicts."""
    is_dict = isinstance(space, gymnasium.spaces.Dict)
    parts: Any = getattr(space, "spaces", ())
    for name, part in parts.items() if is_dict else enumerate(parts):
        own = _join(path, str(name))
        if is_dict:
            yield own
        yield from _entries(part, own)


def observation_bounds(space: gymnasium.Space[Any]) -> Bounds | None:
    """Returns the bounds of a leaf, or None if they allow every value of its dtype."""
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


def action_spec(space: gymnasium.Space[Any], path: str = "") -> specs.ActionSpec:
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
        return specs.DiscreteSpec(int(space.n), int(space.start), space.dtype)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        shape = tuple(int(n) for n in space.shape)
        return specs.MultiDiscreteSpec(
            shape, _integers(space.nvec), _integers(space.start), space.dtype
        )
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return specs.MultiBinarySpec(tuple(int(n) for n in space.shape))
    if isinstance(space, gymnasium.spaces.Box):
        return _box_spec(space, path)
    raise errors.BadInput(
        f"action space {_named(space, path)} is not supported. Use Discrete,"
        " MultiDiscrete, MultiBinary, a Box of floats, or a Tuple or Dict of these."
    )


def _box_spec(space: gymnasium.spaces.Box, path: str) -> specs.BoxSpec:
    named = f"action space {_named(space, path)}"
    if space.dtype.kind != "f" or space.dtype == np.longdouble:
        raise errors.BadInput(
            f"{named} has dtype {space.dtype}. It must be a float that torch has. Use a"
            " Box of float32, or MultiDiscrete for whole numbers."
        )
    if (space.low >= space.high).any():
        where = np.argwhere(space.low >= space.high)[0].tolist()
        raise errors.BadInput(
            f"{named} leaves no choice at {where}, because its bounds meet. Remove that"
            " element from the space."
        )
    shape = tuple(int(n) for n in space.shape)
    return specs.BoxSpec(shape, space.dtype, _floats(space.low), _floats(space.high))


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(values).flat)


def _collapsed(values: np.ndarray) -> tuple[float, ...]:
    """Returns the bounds per element, flat, or the only one if all are equal."""
    is_one = values.size > 0 and (values == values.flat[0]).all()
    return _floats(values.flat[0] if is_one else values)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(values).flat)


class Interface:
    """Conversions and checks by the spaces of one environment, for E copies."""

    def __init__(
        self,
        observation: gymnasium.Space[Any],
        action: gymnasium.Space[Any],
        ignored: Sequence[str],
        path: str = "",
    ) -> None:
        """Takes the spaces of a single copy.

        Args:
          ignored: paths to leave out.
          path: of the observation space in that of the environment.

        Raises:
          BadInput: one of them is not supported.
        """
        self.observation = observation_spec(observation, ignored, path)
        self.action = action_spec(action)
        self.num_outside = 0  # observations outside their space that were used
        self._checks = [
            _LeafCheck(path, spec, observation_bounds(space_at(observation, path)))
            for path, spec in nest.flatten_with_path(self.observation)
        ]
        self._to_environment = converter(self.action)

    def observe(self, observation: types.Nest, count: int) -> types.Nest:
        """Checks `count` observations [E, ...]; returns them without ignored parts.

        Raises:
          BadData: they do not fit the space.
        """
        leaves = bad_data.leaves(self.observation, observation)
        picked = specs.pick(self.observation, observation)
        if not all(type(x) is np.ndarray and x.dtype.isnative for x in leaves):
            picked = nest.map_structure(_native, self.observation, picked)
            leaves = nest.flatten(picked)
        self.num_outside += sum(
            check(leaf, count) for check, leaf in zip(self._checks, leaves, strict=True)
        )
        return picked

    def act(self, action: types.Nest) -> types.Nest:
        """Converts the agent's actions [E, ...] to new arrays of the environment's."""
        return self._to_environment(action)


def _native(spec: specs.ArraySpec, leaf: Any) -> np.ndarray:
    """Returns a list, or an array of another byte order, as an ordinary array."""
    if isinstance(leaf, np.ndarray):
        return np.asarray(leaf, leaf.dtype.newbyteorder("="))
    return bad_data.cast("observations", leaf, spec.dtype)


class _LeafCheck:
    """Check of shape, dtype, finiteness and bounds of one leaf."""

    def __init__(self, path: str, spec: specs.ArraySpec, bounds: Bounds | None) -> None:
        self._name = f"observations {path!r}" if path else "observations"
        self._shape, self._dtype = spec.shape, spec.dtype
        self._bounds = bounds

    def __call__(self, array: Any, count: int) -> int:
        """Counts the rows [E, ...] outside the bounds, of `count`.

        Raises:
          BadData: they cannot be learned from.
        """
        shape, dtype = array.shape[1:], array.dtype
        if shape != self._shape or dtype != self._dtype:
            raise self._bad(
                f"are {dtype} {list(shape)}, but the space has"
                f" {self._dtype} {list(self._shape)}"
            )
        if array.shape[:1] != (count,):
            raise self._bad(f"have {list(array.shape[:1])} rows instead of {count}")
        if dtype.kind == "f" and not bad_data.are_finite(array).all():
            odd = array[~bad_data.are_finite(array)].flat[0]
            raise self._bad(f"are not finite as float32 ({odd})")
        if self._bounds is None:
            return 0
        low, high, strict = self._bounds
        outside = (array < low) | (array > high)
        if not outside.any():
            return 0
        if strict:
            raise self._bad(
                f"go from {array.min()} to {array.max()}, but the space goes from"
                f" {low.min()} to {high.max()}"
            )
        return int(outside.reshape(len(array), -1).any(1).sum())

    def _bad(self, text: str) -> bad_data.BadData:
        return bad_data.BadData("bad_observations", f"{self._name} {text}")


def converter(spec: specs.ActionSpec) -> Callable[[types.Nest], types.Nest]:
    """Returns a map from the agent's actions to the environment's, arrays [E, ...].

    It returns new arrays in the dtypes of the action space. The environment may keep
    and change them.
    """
    moves = nest.map_structure(_leaf_converter, spec)
    if callable(moves):
        return moves
    return lambda action: nest.map_structure(
        lambda move, leaf: move(leaf), moves, action
    )


def _leaf_converter(spec: Any) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(spec, specs.BoxSpec):
        move = specs.to_environment(spec)
        return lambda action: move(torch.from_numpy(action)).numpy().astype(spec.dtype)
    if isinstance(spec, specs.MultiBinarySpec):
        return lambda action: action.astype(np.int8)
    start, dtype = np.reshape(spec.start, spec.array.shape), spec.dtype
    if not start.any():
        return lambda action: action.astype(dtype)
    return lambda action: (action + start).astype(dtype)
