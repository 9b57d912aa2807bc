"""Preparation of an array of an observation for its encoder.

Every step is chosen once, from the array's spec and the config: division, the move of
a picture's planes to the end, and normalisation. The description of a run and the
modules that compute it are made from the same choice.
"""

import dataclasses
import math

import numpy as np
import torch

from impala_mp import specs
from impala_mp.networks import normalisation, precision

_PIXELS = 255.0
_MAX_ASPECT = 2.0  # ratio of the sides of a picture that is recognised with doubt
_MIN_SIDE = 5  # of a picture in a stack, or with few planes first
_MIN_PLAIN_SIDE = 36  # of a picture without planes
_MOST_PLANES = 4  # that few planes need less evidence


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture: its spec with planes last, and how the environment's becomes that."""

    spec: specs.ArraySpec  # [height, width, planes]
    axes: tuple[int, ...]  # the environment's axes, in the order of the picture

    @property
    def is_moved(self) -> bool:
        return self.axes != tuple(range(len(self.axes)))


def picture(
    spec: specs.ArraySpec, layout: str, is_wanted: bool = False
) -> Picture | None:
    """Returns the picture that an array is; None if it is none.

    Args:
      layout: `config.network.image_layout`.
      is_wanted: the config names an encoder of pictures, so that any matrix is one.
    """
    if isinstance(spec, specs.CategoriesSpec):
        return None
    axes = (0, 1) if is_wanted and len(spec.shape) == 2 else _axes(spec, layout)
    if axes is None:
        return None
    sizes = [spec.shape[axis] for axis in axes]
    shape = (sizes[0], sizes[1], math.prod(sizes[2:]))
    low, high = (_moved(spec.shape, each, axes) for each in (spec.low, spec.high))
    return Picture(specs.array_spec(shape, spec.dtype, low, high), axes)


def _moved(
    shape: tuple[int, ...], bounds: tuple[float, ...], axes: tuple[int, ...]
) -> tuple[float, ...]:
    if len(bounds) < 2:
        return bounds
    return tuple(np.reshape(bounds, shape).transpose(axes).ravel().tolist())


def _axes(spec: specs.ArraySpec, layout: str) -> tuple[int, ...] | None:
    """Returns the axes in the order height, width, planes; None for no picture."""
    shape, first = spec.shape, layout == "planes_first"
    if len(shape) == 2:
        bounded = spec.low in ((), (0.0,)) and spec.high in ((), (1.0,), (_PIXELS,))
        plain = bounded or spec.dtype.kind == "u"  # or depths, in 16 bits
        plain = plain and min(shape) >= _MIN_PLAIN_SIDE
        return (0, 1) if plain else None
    if len(shape) == 3:
        if layout == "auto":
            first = _are_planes_first(*shape)
        return (1, 2, 0) if first else (0, 1, 2)
    if len(shape) == 4:  # a stack of pictures
        if layout != "auto":
            return (2, 3, 0, 1) if first else (1, 2, 0, 3)
        return _axes_of_stack(shape)
    return None


def _are_planes_first(planes: int, height: int, width: int) -> bool:
    """Returns whether a shape has its planes first; in doubt they are last.

    The sides of a picture resemble each other more than they resemble its planes.
    """
    sides, other = _aspect(height, width), _aspect(planes, height)
    if sides >= other:
        return False
    is_small = planes <= _MOST_PLANES and min(height, width) >= _MIN_SIDE
    return is_small or height == width or other > _MAX_ASPECT * sides


def _aspect(one: int, other: int) -> float:
    return max(one, other) / min(one, other)


def _axes_of_stack(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    for row in range(3):  # where both sides exceed every other axis
        others = [axis for axis in range(4) if axis not in (row, row + 1)]
        side = min(shape[row], shape[row + 1])
        if side >= _MIN_SIDE and side > max(shape[axis] for axis in others):
            return (row, row + 1, *others)
    return None


def divisor(spec: specs.ArraySpec) -> np.ndarray:
    """Returns what an array is divided by, a scalar or [*shape]; 1 unless it is bytes.

    Bytes are divided by the upper bound of their space, which makes pixels [0, 1] and
    leaves planes of 0 and 1 as they are.
    """
    if spec.dtype != np.uint8:
        return np.ones(())
    high = np.array(spec.high or (_PIXELS,), np.float32)
    high = np.where(high > 0.0, high, 1.0)
    return high.reshape(spec.shape) if len(high) > 1 else high[0]


class Numbers:
    """Map of an array [N, ...] to float numbers: cast, divided, planes last.

    `for_convolutions`: bytes become bfloat16 at once where a network computes in it.
    They are exact, and their quotients are what float32 would be rounded to.
    """

    def __init__(
        self,
        spec: specs.ArraySpec,
        image: Picture | None,
        dtype: torch.dtype = torch.float32,
        for_convolutions: bool = False,
    ) -> None:
        by = divisor(spec)
        self._by = float(by) if by.ndim == 0 else 1.0
        self._each = torch.from_numpy(by.astype(np.float32)) if by.ndim else None
        self._dtype = dtype
        self._axes = None if image is None else image.axes
        self._rounds = for_convolutions and spec.dtype == np.uint8

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        rounds = self._rounds and precision.is_reduced(observation.device.type)
        numbers = observation.to(torch.bfloat16 if rounds else self._dtype)
        # In place: only bytes are divided, and their cast is a copy.
        if self._each is not None:
            if self._each.device != numbers.device:
                self._each = self._each.to(numbers.device)
            numbers.div_(self._each)
        elif self._by != 1.0:
            numbers.div_(self._by)
        if self._axes is None:
            return numbers
        if len(self._axes) == 2:
            return numbers.unsqueeze(-1)
        numbers = numbers.permute(0, *(axis + 1 for axis in self._axes))
        return numbers.flatten(3) if len(self._axes) == 4 else numbers


def num_inputs(spec: specs.ArraySpec) -> int:
    """Returns the number of inputs of an encoder of this leaf."""
    if isinstance(spec, specs.CategoriesSpec):
        return sum(spec.num_values)
    return math.prod(spec.shape)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The encoder of one array, and what happens to the array before it."""

    name: str  # of the encoder, never auto
    given: specs.ArraySpec  # the environment's
    spec: specs.ArraySpec  # the encoder's
    image: Picture | None  # None: its axes stay
    normalise: bool
    unchanged: bool  # for an encoder of the user: not even cast

    def numbers(self) -> Numbers:
        exact = normalisation.precision(self.given.dtype)
        dtype = exact if self.normalise else torch.float32
        convolved = self.image is not None and ":" not in self.name
        convolved = convolved and not self.normalise
        return Numbers(self.given, self.image, dtype, convolved)

    def normaliser(self) -> normalisation.Normaliser | None:
        if not self.normalise:
            return None
        dtype = normalisation.precision(self.given.dtype)
        return normalisation.Normaliser(self.spec.shape, dtype)
