"""Exact state of environments written in Python; loading it runs no code.

A walk over the attributes of an object graph. Numbers, strings, arrays and random
generators are state. Functions, classes and spaces are not. Any other object that
Python cannot look into (an emulator's handle) is refused.
"""

import collections
import enum
import types as python_types
from typing import Any

import gymnasium
import numpy as np
import torch

from impala_mp import errors, specs
from impala_mp.environments import episode_numbers, spaces

_PLAIN = (bool, int, float, str, bytes, type(None))
_NO_STATE = (
    python_types.ModuleType,
    python_types.FunctionType,
    python_types.BuiltinFunctionType,
    python_types.MethodType,
    type,
    gymnasium.spaces.Space,
    spaces.Interface,
    specs.EnvironmentSpec,
    episode_numbers.EpisodeNumbers,
    enum.Enum,
    range,
)


_CONSTANTS = ("metadata", "spec")  # by Gymnasium's conventions


def take(root: Any) -> dict[str, Any]:
    """Returns the state of every object that `root` leads to, by path.

    Raises:
      BadInput: one of the objects cannot be saved.
    """
    state: dict[str, Any] = {}
    _Walk(lambda path, value: state.__setitem__(path, _encode(value))).visit(root)
    return state


def restore(root: Any, state: dict[str, Any]) -> None:
    """Writes `state` back into a graph of the same shape."""
    writes = _Walk(lambda path, value: None)
    writes.visit(root)
    if writes.paths.keys() != state.keys():
        odd = sorted(writes.paths.keys() ^ state.keys())[0]
        raise ValueError(f"the saved environment has other attributes: {odd}")
    for path, (owner, name, value) in writes.paths.items():
        decoded = _decode(value, state[path])
        if decoded is not value:
            vars(owner)[name] = decoded


class _Walk:
    """Walk that calls `see` for every attribute that is state, each object once."""

    def __init__(self, see: Any) -> None:
        self._see = see
        self._seen: set[int] = set()
        self.paths: dict[str, tuple[Any, str, Any]] = {}

    def visit(self, owner: Any, path: str = "") -> None:
        if id(owner) in self._seen:
            return
        self._seen.add(id(owner))
        for name, value in sorted(vars(owner).items()):
            if name in _CONSTANTS:
                continue
            self._attribute(owner, name, value, f"{path}.{name}" if path else name)

    def _attribute(self, owner: Any, name: str, value: Any, path: str) -> None:
        if isinstance(value, _NO_STATE):
            return
        if _is_data(value):
            self.paths[path] = (owner, name, value)
            self._see(path, value)
        elif isinstance(value, (list, tuple, dict)):
            children = value.items() if isinstance(value, dict) else enumerate(value)
            for key, child in children:
                if not isinstance(child, _NO_STATE):
                    self._object(child, f"{path}[{key}]")
        else:
            self._object(value, path)

    def _object(self, value: Any, path: str) -> None:
        if not hasattr(value, "__dict__"):
            raise errors.BadInput(
                f"the environment cannot save its state. {path} is a"
                f" {type(value).__module__}.{type(value).__qualname__}, whose content"
                " Python cannot read."
            )
        self.visit(value, path)


def _is_data(value: Any) -> bool:
    """Returns True for data that can be saved, containers of data included."""
    if isinstance(value, dict):
        return all(isinstance(k, _PLAIN) and _is_data(v) for k, v in value.items())
    if isinstance(value, (list, tuple, collections.deque)):
        return all(_is_data(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    generators = (np.random.Generator, np.random.RandomState, np.generic)
    return isinstance(value, (*_PLAIN, *generators))


def _encode(value: Any) -> Any:
    """Converts `value` to types that torch.load(weights_only=True) accepts."""
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return [_encode(item) for item in value.get_state()]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, collections.deque)):
        return [_encode(item) for item in value]
    return value


def _decode(current: Any, saved: Any) -> Any:
    """Converts `saved` to the type of `current`, whose arrays are filled in place."""
    if isinstance(current, np.random.Generator):
        current.bit_generator.state = saved
        return current
    if isinstance(current, np.random.RandomState):
        current.set_state(tuple(_plain(item) for item in saved))
        return current
    if isinstance(saved, torch.Tensor):
        array = saved.numpy()
        same = isinstance(current, np.ndarray) and current.shape == array.shape
        if same and current.dtype == array.dtype:
            current[...] = array
            return current
        return array.copy()
    if isinstance(current, np.generic) and not isinstance(saved, list):
        return type(current)(saved)
    if isinstance(current, dict):
        return {key: _plain(item) for key, item in saved.items()}
    if isinstance(saved, list):
        items = [_plain(item) for item in saved]
        if isinstance(current, collections.deque):
            return collections.deque(items, current.maxlen)
        return tuple(items) if isinstance(current, tuple) else items
    return saved


def _plain(saved: Any) -> Any:
    return saved.numpy().copy() if isinstance(saved, torch.Tensor) else saved
