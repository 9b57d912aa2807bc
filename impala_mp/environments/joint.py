"""Common layouts that several environments or players are padded to."""

import functools
from collections.abc import Sequence

from impala_mp import nest, specs, types


def observation(parts: Sequence[types.Nest]) -> types.Nest:
    """Returns the smallest layout that all observations fit into.

    Raises:
      ValueError: there is none.
    """
    return functools.reduce(
        lambda one, other: nest.map_structure(_larger, one, other), parts
    )


def _larger(one: specs.ArraySpec, other: specs.ArraySpec) -> specs.ArraySpec:
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


def action(parts: Sequence[specs.ActionSpec]) -> specs.ActionSpec:
    """Returns the layout of all actions: their own if equal, else the most of them.

    Raises:
      ValueError: they differ, and one of them is not Discrete.
    """
    first = parts[0]
    if all(part == first for part in parts):
        return first
    if not all(isinstance(part, specs.DiscreteSpec) for part in parts):
        raise ValueError("different kinds of actions")
    return specs.DiscreteSpec(max(part.num_actions for part in parts))


def corners(rows: types.Nest, part: types.Nest) -> types.Nest:
    """Returns views of `rows` [E, ...], without the padding, in the layout `part`."""
    return nest.map_structure(
        lambda array, leaf: array[(slice(None), *map(slice, leaf.shape))], rows, part
    )
