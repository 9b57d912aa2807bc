"""Curves and sparklines in block characters, or in ASCII."""

from collections.abc import Sequence

import numpy as np

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:#"
_ASCII_LINE = " _.-=*#"  # a sparkline has one row, so more levels help


def columns(xs: Sequence[float], ys: Sequence[float], width: int) -> np.ndarray:
    """Averages points with ascending `xs` into `width` columns of equal range.

    A column without a point is interpolated. Returns [width], empty without points.
    """
    if not len(xs) or width < 1:
        return np.zeros(0)
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    span = x[-1] - x[0]
    if span <= 0:
        return np.full(width, y.mean())
    index = np.clip(((x - x[0]) / span * width).astype(int), 0, width - 1)
    counts = np.bincount(index, minlength=width)
    sums = np.bincount(index, y, minlength=width)
    filled = np.flatnonzero(counts)
    means = sums[filled] / counts[filled]
    return np.interp(np.arange(width), filled, means)


def curve(values: Sequence[float], height: int, ascii_only: bool = False) -> list[str]:
    """Draws one column of `height` rows for each value; returns the rows, top first.

    The lowest value has the lowest mark, and the highest fills its column. A value that
    is not finite leaves its column empty.
    """
    return _draw(values, height, _ASCII if ascii_only else _BLOCKS)


def sparkline(values: Sequence[float], ascii_only: bool = False) -> str:
    """Draws a curve of one row."""
    return _draw(values, 1, _ASCII_LINE if ascii_only else _BLOCKS)[0]


def _draw(values: Sequence[float], height: int, marks: str) -> list[str]:
    levels = len(marks) - 1
    heights = _heights(np.asarray(values, float), height * levels)
    return [
        "".join(marks[min(levels, max(0, h - row * levels))] for h in heights)
        for row in reversed(range(height))
    ]


def _heights(values: np.ndarray, top: int) -> list[int]:
    """Returns heights in marks: 1 for the lowest value, `top` for the highest.

    Equal values have half the height.
    """
    known = np.isfinite(values)
    if not known.any():
        return [0] * len(values)
    low, high = values[known].min(), values[known].max()
    if high <= low:
        shares = np.full(len(values), 0.5)
    else:
        shares = (np.where(known, values, low) - low) / (high - low)
    heights = 1 + np.rint(shares * (top - 1)).astype(int)
    return np.where(known, heights, 0).tolist()
