"""Numbers that the user's `info` has at the end of each episode, as columns."""

import numbers
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from impala_mp import types

FINAL = "impala_mp/final"  # key of the infos of ended copies, by copy
_METRICS = "metrics"  # key of a dict of numbers
_SUCCESS = {"is_success": "success_rate"}
_MAX_CHARACTERS = 48  # of a name


class EpisodeNumbers:
    """Finite numbers of `info` and `info["metrics"]`, by name.

    A name gets a column at its first appearance, and keeps it. Further names than
    there are columns are not kept, and the first of them is reported.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._columns: dict[str, int] = {}
        self._publish: Callable[[str], None] = lambda name: None
        self._reported = False

    def follow(self, names: Sequence[str], publish: Callable[[str], None]) -> None:
        """Continues with `names`, and calls `publish` with each new one."""
        for name in names:
            self._add(name)
        self._publish = publish

    def take(
        self, info: Mapping[str, Any] | list[Any], over: np.ndarray
    ) -> np.ndarray | None:
        """Returns the numbers of the copies whose episode is over.

        Args:
          info: of a step of all copies, as Gymnasium's vector environments return it,
            or a list of one info per copy, as its wrapper DictInfoToList does.
          over: bool [E].

        Returns:
          float64 [E, types.NUMBERS], NaN where there is none. None if no name is known.
        """
        found: np.ndarray | None = None
        if self.names:
            found = np.full((len(over), types.NUMBERS), np.nan)
        for i, own in _infos(info, over) if info else ():
            for name, value in _numbers(own):
                column = self._column(name)
                if column is None:
                    continue
                if found is None:
                    found = np.full((len(over), types.NUMBERS), np.nan)
                found[i, column] = value
        return found

    def _column(self, name: str) -> int | None:
        column = self._columns.get(name)
        if column is not None:
            return column
        if len(self.names) < types.NUMBERS:
            self._publish(name)
            return self._add(name)
        if not self._reported:
            self._reported = True
            print(
                f"info has more than {types.NUMBERS} numbers. {name} and later ones"
                ' are not kept. Put those that matter into info["metrics"].',
                flush=True,
            )
        return None

    def _add(self, name: str) -> int:
        self.names.append(name)
        self._columns[name] = len(self._columns)
        return self._columns[name]


def _infos(
    info: Mapping[str, Any] | list[Any], over: np.ndarray
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields each copy whose episode is over, and its own info."""
    if not isinstance(info, list) and FINAL in info:
        yield from info[FINAL].items()
        return
    for i in np.flatnonzero(over).tolist():
        yield i, info[i] if isinstance(info, list) else _of_copy(info, i)


def _of_copy(info: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Returns the entries of copy `i`: NAME is an array, and _NAME its mask."""
    own: dict[str, Any] = {}
    for name, values in info.items():
        if name.startswith("_"):
            continue
        if isinstance(values, Mapping):
            own[name] = _of_copy(values, i)
        elif isinstance(values, (np.ndarray, list, tuple)) and len(values) > i:
            has = info.get(f"_{name}")
            if has is None or has[i]:
                own[name] = values[i]
    return own


def _numbers(info: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the finite numbers of one info; those of "metrics" first."""
    if not isinstance(info, Mapping):
        return
    metrics = info.get(_METRICS)
    parts = [metrics, info] if isinstance(metrics, Mapping) else [info]
    for part in parts:
        for key, each in part.items():
            value = _number(each)
            if value is not None and isinstance(key, str) and key:
                yield _name(key), value


def _number(value: Any) -> float | None:
    """Returns a finite number as float; None for anything else."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, (numbers.Real, np.bool_)):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # an integer beyond float64
        return None
    return number if np.isfinite(number) else None


def _name(key: str) -> str:
    """Returns a key as the name of a metric: without slashes and control characters."""
    return _SUCCESS.get(key) or re.sub(r"[^\w.:+\- ]", "_", key)[:_MAX_CHARACTERS]
