"""Between a vector environment's spaces and what flows: checks in, actions out."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from impala_mp import distributions, nest, specs, types


class BadData(Exception):
    """What an environment gave cannot be learned from; `counter` counts such things."""

    def __init__(self, counter: str, sentence: str) -> None:
        super().__init__(sentence)
        self.counter = counter


class Interface:
    """What the spaces of one environment say, for a vector of copies."""

    def __init__(
        self,
        observation: gymnasium.Space[Any],
        action: gymnasium.Space[Any],
        ignored: Sequence[str],
    ) -> None:
        """The spaces are of a single copy.

        Raises:
          BadInput: one of them is not supported.
        """
        self.observation = specs.observation_spec(observation, ignored)
        self.action = specs.action_spec(action)
        self.num_outside = 0  # observations that have left their space, and were used
        self._checks = [
            _LeafCheck(
                path, spec, specs.observation_bounds(specs.space_at(observation, path))
            )
            for path, spec in nest.flatten_with_path(self.observation)
        ]
        self._to_environment = _converter(self.action)

    def observe(self, observation: types.Nest) -> types.Nest:
        """What is not ignored, of observations [E, ...].

        Raises:
          BadData: they are not what the space says.
        """
        picked = specs.pick(self.observation, observation)
        self.num_outside += sum(
            check(leaf)
            for check, leaf in zip(self._checks, nest.flatten(picked), strict=True)
        )
        return picked

    def act(self, action: types.Nest) -> types.Nest:
        """Actions [E, ...] as the environment takes them."""
        return self._to_environment(action)


class _LeafCheck:
    """Shape, dtype, finiteness and bounds of one leaf."""

    def __init__(
        self, path: str, spec: specs.ArraySpec, bounds: specs.Bounds | None
    ) -> None:
        self._name = f"observations {path!r}" if path else "observations"
        self._shape, self._dtype = spec.shape, spec.dtype
        self._bounds = bounds

    def __call__(self, array: Any) -> int:
        """How many of the rows [E, ...] lie outside of the bounds.

        Raises:
          BadData: nothing can be learned from them.
        """
        shape, dtype = array.shape[1:], array.dtype
        if shape != self._shape or dtype != self._dtype:
            raise self._bad(
                f"are {dtype} {list(shape)}, and the space says"
                f" {self._dtype} {list(self._shape)}"
            )
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise self._bad("are not finite")
        if self._bounds is None:
            return 0
        low, high, strict = self._bounds
        outside = (array < low) | (array > high)
        if not outside.any():
            return 0
        if strict:
            raise self._bad(
                f"go from {array.min()} to {array.max()}, and the space from"
                f" {low.min()} to {high.max()}"
            )
        return int(outside.reshape(len(array), -1).any(1).sum())

    def _bad(self, text: str) -> BadData:
        return BadData("bad_observations", f"{self._name} {text}")


def _converter(spec: specs.ActionSpec) -> Callable[[types.Nest], types.Nest]:
    """From the agent's actions to the environment's, arrays [E, ...] both."""
    if isinstance(spec, specs.DiscreteSpec):
        start = spec.start
        return (lambda action: action + start) if start else (lambda action: action)
    to_environment = distributions.from_spec(spec).to_environment

    def convert(action: types.Nest) -> types.Nest:
        tensors = nest.map_structure(torch.from_numpy, action)
        return nest.map_structure(torch.Tensor.numpy, to_environment(tensors))

    return convert
