"""Charts as inline SVG whose colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from impala_mp.monitoring import html_parts

_WIDTH, _HEIGHT = 960, 340  # of a curve
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 40  # margins of a curve
_SMALL_WIDTH, _SMALL_HEIGHT, _PAD = 240, 56, 5
_POINTS = 400  # of a line, or dots; more are not seen
_TICKS = 5
# The band may take as much of the height again as the mean returns. A single lucky game
# would flatten the curve otherwise.
_BAND_SHARE = 0.6

_Point = TypeVar("_Point")
Points = Sequence[tuple[float, float]]


class Dot(NamedTuple):
    """One evaluation: its mean return, 95 % interval and description."""

    x: float
    y: float
    low: float  # NaN if it is unknown
    high: float
    text: str


class Mark(NamedTuple):
    """A vertical line: something happened at x."""

    x: float
    text: str


class _Scale(NamedTuple):
    """Linear map of [low, high] to pixels."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.stop - self.start)


def curve(
    line: Points,
    band: Sequence[tuple[float, float, float]],
    dots: Sequence[Dot],
    levels: Sequence[tuple[float, str]],
    marks: Sequence[Mark],
    label: str,
) -> str:
    """Returns the learning curve.

    Args:
      line: (x, mean), in order of x.
      band: (x, low, high) around it.
      levels: (y, name) of horizontal lines.
      label: describes the chart to a screen reader.
    """
    line, band, dots = thinned(line), thinned(band), thinned(dots)
    xs = [x for x, _ in line] + [dot.x for dot in dots]
    x = _Scale(0.0, max(xs), _LEFT, _WIDTH - _RIGHT)
    low, high = _limits(line, band, dots, levels)
    y = _Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' aria-label="{html_parts.text(label)}">',
        f'<clipPath id="plot"><rect x="{_LEFT}" y="{_TOP}"'
        f' width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT - _TOP - _BOTTOM}"/>'
        "</clipPath>",
        *_axes(x, y),
        *(_mark(x(each.x), each.text) for each in marks if each.x <= x.high),
        *(_level(y(value), name) for value, name in levels),
    ]
    if band:
        upper = [(x(a), y(c)) for a, _, c in band]
        lower = [(x(a), y(b)) for a, b, _ in reversed(band)]
        area = _path([*upper, *lower])
        parts.append(f'<path class="band" clip-path="url(#plot)" d="{area}Z"/>')
    path = _path([(x(a), y(b)) for a, b in line])
    parts.append(f'<path class="line" clip-path="url(#plot)" d="{path}"/>')
    parts += [_dot(x(each.x), y, each) for each in dots]
    return "".join([*parts, "</svg>"])


def small(points: Points, end: float, label: str, level: float = math.nan) -> str:
    """Returns a line without axes, over x from 0 to `end`.

    level: a horizontal line, if the numbers come near it.
    """
    points = thinned(points)
    values = [value for _, value in points]
    low, high = _around(min(values), max(values))
    if low <= level <= high + 0.5 * (high - low):
        high = max(high, level)
    else:
        level = math.nan
    x = _Scale(0.0, end, _PAD, _SMALL_WIDTH - _PAD)
    y = _Scale(low, high, _SMALL_HEIGHT - _PAD, _PAD)
    places = [(x(a), y(b)) for a, b in points]
    last = places[-1]
    rule = (
        ""
        if math.isnan(level)
        else f'<path class="level" d="M{_PAD},{y(level):.1f}H{_SMALL_WIDTH - _PAD}"/>'
    )
    return (
        f'<svg class="small" viewBox="0 0 {_SMALL_WIDTH} {_SMALL_HEIGHT}" role="img"'
        f' aria-label="{html_parts.text(label)}">'
        f'<path class="axis" d="M{_PAD},{_SMALL_HEIGHT - 2}H{_SMALL_WIDTH - _PAD}"/>'
        f'{rule}<path class="line" d="{_path(places)}"/>'
        f'<circle class="end" cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="2.5"/></svg>'
    )


def thinned(points: Sequence[_Point]) -> list[_Point]:
    """Returns at most `_POINTS` equally spaced points, the last one included."""
    if len(points) <= _POINTS:
        return list(points)
    step = (len(points) - 1) / (_POINTS - 1)
    return [points[round(i * step)] for i in range(_POINTS)]


def ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers from `low` to `high`."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw)
    first = math.ceil(low / step)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def short(value: float) -> str:
    """Formats a number of an axis: 250k, 1.5M, 0.25."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= (size if unit != "k" else 1e4):
            return f"{value / size:.4g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _around(low: float, high: float) -> tuple[float, float]:
    """Returns a range that is not empty."""
    if high > low:
        return low, high
    half = max(0.5 * abs(high), 1e-3)
    return low - half, high + half


def _limits(
    line: Points,
    band: Sequence[tuple[float, float, float]],
    dots: Sequence[Dot],
    levels: Sequence[tuple[float, str]],
) -> tuple[float, float]:
    inner = [value for _, value in line] + [value for value, _ in levels]
    for dot in dots:
        inner += [v for v in (dot.y, dot.low, dot.high) if math.isfinite(v)]
    low, high = _around(min(inner), max(inner))
    room = _BAND_SHARE * (high - low)
    lowest = min((each[1] for each in band), default=low)
    highest = max((each[2] for each in band), default=high)
    low, high = max(low - room, min(low, lowest)), min(high + room, max(high, highest))
    edge = 0.03 * (high - low)
    return low - edge, high + edge


def _axes(x: _Scale, y: _Scale) -> list[str]:
    parts = []
    for value in ticks(y.low, y.high):
        at = f"{y(value):.1f}"
        parts.append(f'<path class="rule" d="M{_LEFT},{at}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{at}" dy="4"'
            f' text-anchor="end">{short(value)}</text>'
        )
    bottom = _HEIGHT - _BOTTOM
    for value in ticks(x.low, x.high) if x.high > 0 else [0.0]:
        parts.append(
            f'<text class="tick" x="{x(value):.1f}" y="{bottom + 18}"'
            f' text-anchor="middle">{short(value)}</text>'
        )
    parts.append(f'<path class="axis" d="M{_LEFT},{bottom}H{_WIDTH - _RIGHT}"/>')
    parts.append(
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}"'
        ' text-anchor="end">agent steps</text>'
    )
    return parts


def _mark(x: float, text: str) -> str:
    return (
        f'<path class="mark" d="M{x:.1f},{_TOP}V{_HEIGHT - _BOTTOM}">'
        f"<title>{html_parts.text(text)}</title></path>"
    )


def _level(y: float, name: str) -> str:
    return (
        f'<path class="level" d="M{_LEFT},{y:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{y - 5:.1f}"'
        f' text-anchor="end">{html_parts.text(name)}</text>'
    )


def _dot(x: float, y: _Scale, dot: Dot) -> str:
    whisker = (
        f'<path class="whisker" d="M{x:.1f},{y(dot.low):.1f}V{y(dot.high):.1f}"/>'
        if math.isfinite(dot.low + dot.high)
        else ""
    )
    return (
        f'<g><title>{html_parts.text(dot.text)}</title>{whisker}<circle class="dot"'
        f' cx="{x:.1f}" cy="{y(dot.y):.1f}" r="4"/></g>'
    )


def _path(points: Points) -> str:
    """Returns the path through pixels."""
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
