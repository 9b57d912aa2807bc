"""Comparison of an environment's observations with its space, during a play."""

from typing import Any

import gymnasium
import numpy as np

from impala_mp import nest, types
from impala_mp.environments import bad_data, spaces


class Broken(Exception):
    """An environment that cannot continue; the text is a full sentence."""


class LeafWatch:
    """Comparison of one leaf of the observations with its space, during a play."""

    def __init__(self, path: str, space: Any) -> None:
        self.path, self.space = path, space
        self.bounds = spaces.observation_bounds(space)
        self._name = f"an observation {path!r}" if path else "an observation"
        self.cast = ""  # dtype that differs from the space's but can be cast to it
        self.num_bad = self.num_outside = self.num_values = 0
        self.lowest, self.highest = np.inf, -np.inf

    def see(self, observation: Any, *leading: int) -> None:
        """Notes one observation, or one per copy with a `leading` dimension.

        Raises:
          Broken: it does not fit into an array of the space's shape and dtype.
        """
        array, space = np.asarray(observation), self.space
        shape = (*leading, *space.shape)
        if array.shape != shape:
            raise Broken(
                f"{self._name} has shape {list(array.shape)}. By observation_space it"
                f" must be {list(shape)}. Correct one of the two."
            )
        if array.dtype != space.dtype:
            # Single copies and lists are cast. An array of a batch is not.
            is_batch = bool(leading) and isinstance(observation, np.ndarray)
            if is_batch or not np.can_cast(array.dtype, space.dtype, "same_kind"):
                raise Broken(
                    f"{self._name} is {array.dtype}. By observation_space it must be"
                    f" {space.dtype}. Return numpy.asarray(observation,"
                    f" numpy.{space.dtype}), or correct the space."
                )
            self.cast = str(array.dtype)
            try:
                array = bad_data.cast(self._name, array, space.dtype)
            except bad_data.BadData as error:
                raise Broken(f"{error}.") from error
        self.num_values += array.size
        self.num_bad += int((~bad_data.are_finite(array)).sum())
        if self.bounds:
            outside = (array < self.bounds.low) | (array > self.bounds.high)
            self.num_outside += int(outside.sum())
        if array.size:
            self.lowest = min(self.lowest, array.min())
            self.highest = max(self.highest, array.max())


class Watch:
    """Comparison of whole observations with the space, during a play."""

    def __init__(self, spec: types.Nest, space: gymnasium.Space[Any]) -> None:
        """Takes the spec of the leaves to compare, and the whole space."""
        self._spec = spec
        self.leaves = [
            LeafWatch(path, spaces.space_at(space, path))
            for path, _ in nest.flatten_with_path(spec)
        ]
        self._kept: dict[int, list[tuple[Any, Any]]] = {}
        self.shared = ""  # what a copy changed that belongs to another one, too

    def see(self, observation: Any, *leading: int) -> None:
        """Notes one observation, leaf by leaf, as in `LeafWatch.see`."""
        arrays = bad_data.leaves(self._spec, observation)
        for leaf, array in zip(self.leaves, arrays, strict=True):
            leaf.see(array, *leading)

    def compare(self, index: int, observation: Any) -> None:
        """Notes whether copy `index` has changed observations of the other copies."""
        for other, arrays in self._kept.items():
            for leaf, (array, before) in zip(self.leaves, arrays, strict=True):
                if other != index and not np.array_equal(array, before):
                    self.shared = f"the observation {leaf.path!r}".removesuffix(" ''")
        arrays = bad_data.leaves(self._spec, observation)
        self._kept[index] = [(array, np.array(array)) for array in arrays]


class Watched(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A single copy whose observations are noted before they are stacked."""

    def __init__(self, env: gymnasium.Env[Any, Any], watch: Watch, index: int) -> None:
        super().__init__(env)
        self._watch, self._index = watch, index

    def reset(self, **kwargs: Any) -> Any:
        return self._noted(self.env.reset(**kwargs))

    def step(self, action: Any) -> Any:
        return self._noted(self.env.step(action))

    def _noted(self, result: Any) -> Any:
        self._watch.see(result[0])
        self._watch.compare(self._index, result[0])
        return result


def class_arrays(env: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of the environment's classes, which all copies share."""
    return {
        f"{kind.__qualname__}.{name}": value
        for kind in type(env).__mro__
        if not kind.__module__.startswith("gymnasium.")
        for name, value in vars(kind).items()
        if isinstance(value, np.ndarray)
    }
