"""Maps over nested tuples, named tuples, lists and dicts (dicts in key order)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from impala_mp import types
from impala_mp.types import Nest


def _children(structure: Nest) -> list[tuple[str, Nest]] | None:
    """Returns the (name, child) pairs of a node, or None for a leaf."""
    if isinstance(structure, dict):
        return [(str(key), structure[key]) for key in sorted(structure)]
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return list(zip(structure._fields, structure, strict=True))
    if isinstance(structure, (tuple, list)):
        return [(str(i), child) for i, child in enumerate(structure)]
    return None


def _rebuild(structure: Nest, children: list[Nest]) -> Nest:
    if isinstance(structure, dict):
        return dict(zip(sorted(structure), children, strict=True))
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*children)
    return type(structure)(children)


def flatten_with_path(structure: Nest, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf), depth first; the path is slash-separated."""
    children = _children(structure)
    if children is None:
        yield path, structure
        return
    for name, child in children:
        yield from flatten_with_path(child, f"{path}/{name}" if path else name)


def flatten(structure: Nest) -> list[Any]:
    """Returns the leaves, depth first."""
    return [leaf for _, leaf in flatten_with_path(structure)]


def map_structure(function: Callable[..., Any], *structures: Nest) -> Nest:
    """Applies `function` to corresponding leaves; the first structure gives the shape.

    Raises:
      ValueError: the structures differ.
    """
    children = [_children(structure) for structure in structures]
    first = children[0]
    if first is None:
        return function(*structures)
    names = [name for name, _ in first]
    for other in children[1:]:
        if other is None or [name for name, _ in other] != names:
            raise ValueError(f"structures differ: {structures[0]!r} and {other!r}")
    columns = zip(*[[child for _, child in c] for c in children if c], strict=True)
    return _rebuild(structures[0], [map_structure(function, *c) for c in columns])


def map_batch(
    function: Callable[..., Any], *structures: Nest, axes: Nest = types.BATCH_AXIS
) -> Any:
    """Applies `function(axis, *leaves)` to the leaves of trajectories.

    Args:
      axes: the axis of B in each part of the structures.

    Returns:
      A structure; parts that are () in the first one are () in it.
    """
    if isinstance(structures[0], tuple) and not structures[0]:
        return ()
    if isinstance(axes, int):
        return map_structure(lambda *leaves: function(axes, *leaves), *structures)
    return type(axes)(
        *(
            map_batch(function, *parts, axes=each)
            for each, *parts in zip(axes, *structures, strict=True)
        )
    )


def at(structure: Nest, path: str) -> Nest:
    """Returns the part at a slash-separated path; "" is the whole structure.

    Raises:
      KeyError: there is no such path.
    """
    for name in path.split("/") if path else ():
        structure = dict(_children(structure) or ())[name]
    return structure


def without(structure: Nest, path: str) -> Nest:
    """Copies nested dicts without the entry at `path`."""
    name, _, rest = path.partition("/")
    return {
        key: without(child, rest) if key == name else child
        for key, child in structure.items()
        if rest or key != name
    }


def tensors(time_step: types.TimeStep) -> types.TimeStep:
    """Converts rows of an environment to tensors, which may share their memory."""
    return map_structure(
        lambda array: torch.from_numpy(np.ascontiguousarray(array)), time_step
    )
