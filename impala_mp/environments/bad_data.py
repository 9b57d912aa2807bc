"""Bad data from an environment: its exception, and the checks that raise it."""

from typing import Any

import numpy as np

from impala_mp import types


class BadData(Exception):
    """Environment data that cannot be learned from, counted by the metric `counter`."""

    def __init__(self, counter: str, sentence: str) -> None:
        super().__init__(sentence)
        self.counter = counter


_LARGEST = np.float64(np.finfo(np.float32).max)


def misbuilt(error: Exception) -> BadData:
    return BadData(
        "bad_observations",
        f"an observation does not fit the space ({error!r}). It needs the same keys or"
        " parts. Return a dict or tuple with them",
    )


def leaves(spec: types.Nest, observation: Any) -> list[Any]:
    """Returns the parts of an observation where `spec` has arrays, depth first.

    They may be lists. The parts that `spec` has not are ignored.

    Raises:
      BadData: a key or a part is missing.
    """
    try:
        return _leaves(spec, observation)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise misbuilt(error) from error


def _leaves(spec: types.Nest, observation: Any) -> list[Any]:
    if isinstance(spec, dict):
        pairs = [(spec[name], observation[name]) for name in sorted(spec)]
    elif isinstance(spec, tuple):
        pairs = list(zip(spec, observation, strict=True))
    else:
        return [observation]
    return [leaf for pair in pairs for leaf in _leaves(*pair)]


def infinite_return(value: float) -> BadData:
    return BadData(
        "bad_rewards",
        f"the return of an episode is not finite as float32 ({value}). Scale the"
        " rewards in the environment",
    )


def are_finite(array: np.ndarray) -> np.ndarray:
    """Returns where numbers are finite, also as float32."""
    if array.dtype.itemsize <= 4 or array.dtype.kind != "f":
        return np.isfinite(array)
    return np.abs(array) <= _LARGEST


def rewards(values: Any, num_envs: int) -> np.ndarray:
    """Checks the rewards of `num_envs` copies; returns numbers [E].

    Raises:
      BadData: they are no numbers, not one per copy, or not finite as float32.
    """
    array = numbers(values, num_envs)
    finite = are_finite(array)
    if not finite.all():
        raise BadData(
            "bad_rewards",
            f"rewards are not finite as float32: {array[~finite][0]!s}. They must be"
            " finite. Correct or scale them in the environment",
        )
    return array


def numbers(values: Any, num_envs: int) -> np.ndarray:
    """Checks rewards of `num_envs` copies, finite or not; returns numbers [E].

    Raises:
      BadData: they are no numbers, or not one per copy.
    """
    array = _array("rewards", values)
    if array.shape != (num_envs,) or array.dtype.kind not in "fiub":
        raise BadData(
            "bad_rewards",
            f"rewards are {array.dtype} {list(array.shape)}: {values!r}. They must be"
            f" one number per copy. Return numbers of shape [{num_envs}]",
        )
    return array


def ends(name: str, values: Any, num_envs: int) -> np.ndarray:
    """Checks `terminated` or `truncated` of `num_envs` copies; returns bool [E].

    Whole numbers must be 0 or 1.

    Raises:
      BadData: they are something else, or not one per copy.
    """
    array = _array(name, values)
    kind, is_right = array.dtype.kind, array.shape == (num_envs,)
    if kind == "b" and is_right:
        return array
    if kind not in "iu" or not is_right or ((array != 0) & (array != 1)).any():
        raise BadData(
            "bad_rewards",
            f"{name} is {array.dtype} {list(array.shape)}: {values!r}. It must be one"
            f" bool per copy. Return {name}.astype(bool), of shape [{num_envs}]",
        )
    return array.astype(bool)


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise BadData(
            "bad_rewards",
            f"{name} cannot be an array ({error}): {values!r}. It must have one number"
            " per copy. Return an array",
        ) from error


def cast(name: str, values: Any, dtype: np.dtype) -> np.ndarray:
    """Returns observations as an array of `dtype`, with the same values.

    Floats are rounded.

    Raises:
      BadData: a value would become another one, or is no number.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise _misfit(name, f"cannot be an array ({error})", dtype) from error
    if array.dtype.kind not in ("biuf" if dtype.kind == "f" else "biu"):
        raise _misfit(name, f"are {array.dtype} {list(array.shape)}", dtype)
    with np.errstate(over="ignore"):
        made = array.astype(dtype)
    if dtype.kind == "f":
        lost = np.isfinite(array) & ~np.isfinite(made)
    else:
        lost = made != array
    if lost.any():
        text = f"are {array.dtype} with {array[lost].flat[0]!s}"
        raise _misfit(name, text, dtype)
    return made


def _misfit(name: str, text: str, dtype: np.dtype) -> BadData:
    return BadData(
        "bad_observations",
        f"{name} {text}, which does not fit the space of {dtype}. Correct the"
        " observations or the space",
    )
