"""Plots of learning curves over runs and seeds, with confidence bands."""

import io
from typing import Any

import numpy as np

from impala_mp import errors
from impala_mp.storage import files, metrics

_POINTS = 400  # of a band
_LABELS = {
    "agent_steps": "agent steps",
    "env_frames": "environment frames",
    "time_secs": "seconds of training",
    "updates": "updates",
    "episode/return_mean": "episode return (full game, mean of the last 100)",
    "throughput/agent_steps_per_sec": "agent steps a second",
}
# 97.5 % points of Student's t, by degrees of freedom from 1; beyond: the normal's.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)

Series = tuple[np.ndarray, np.ndarray]


def load(folder: str, x: str, key: str) -> Series:
    """Returns (x, y) of one run.

    Raises:
      BadInput: the run has no records with both.
    """
    every = metrics.read(folder)
    records = [r for r in every if all(files.is_number(r.get(k)) for k in (x, key))]
    if not records:
        known = sorted({k for r in every for k in r})
        raise errors.BadInput(
            f"{folder} has no record with {x} and {key}. It has"
            f" {', '.join(known) or 'none at all'}."
        )
    return np.array([r[x] for r in records]), np.array([r[key] for r in records])


def band(series: list[Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (x, mean, half width) over the range that all runs cover.

    The half width is that of Student's 95 % confidence interval of the mean over seeds.
    """
    low = max(x[0] for x, _ in series)
    high = min(x[-1] for x, _ in series)
    grid = np.linspace(low, high, _POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in series])
    return grid, values.mean(0), _half_width(values)


def _half_width(values: np.ndarray) -> np.ndarray:
    """Returns the half width of the interval around the mean over axis 0, the seeds."""
    count = len(values)
    t = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else 1.96
    return t * values.std(0, ddof=1) / count**0.5


def _draw(axes: Any, label: str, folders: list[str], x: str, key: str) -> None:
    series = [load(folder, x, key) for folder in folders]
    if len(series) == 1:
        axes.plot(*series[0], label=label)
    else:
        _draw_band(axes, f"{label} ({len(series)} seeds)", *band(series))
    if key == "episode/return_mean":
        _draw_evaluations(axes, folders, x)


def _draw_band(
    axes: Any, label: str, x: Any, mean: np.ndarray, half: np.ndarray
) -> None:
    (line,) = axes.plot(x, mean, label=label)
    color = line.get_color()
    axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, lw=0)


def _draw_evaluations(axes: Any, folders: list[str], x: str) -> None:
    key = "evaluation/return_mean"
    points = [
        (r[x], r[key]) for f in folders for r in metrics.read(f) if x in r and key in r
    ]
    if points:
        color = axes.lines[-1].get_color()
        axes.plot(*zip(*points, strict=True), "o", color=color, ms=4, mec="white")


def plot(
    groups: dict[str, list[str]],
    path: str,
    key: str = "episode/return_mean",
    x: str = "agent_steps",
) -> None:
    """Writes a PNG with a line for each group of runs (its seeds); evaluations as dots.

    Raises:
      BadInput: a folder has no records with `x` and `key`.
    """
    figure, axes = _figure()
    for label, folders in groups.items():
        _draw(axes, label, folders, x, key)
    axes.set_xlabel(_LABELS.get(x, x))
    axes.set_ylabel(_LABELS.get(key, key))
    axes.legend(frameon=False)
    _write(figure, path)


def plot_against(lines: dict[str, dict[Any, list[float]]], path: str, x: str) -> None:
    """Writes a PNG of final returns against the values of the config's field `x`.

    A line maps each value to the returns of its seeds. They are drawn as dots, with
    their mean and its 95 % confidence interval (Student's t). The values are sorted and
    equally spaced.
    """
    figure, axes = _figure()
    ticks = sorted({value for line in lines.values() for value in line})
    for label, line in lines.items():
        _draw_line(axes, label, {ticks.index(v): line[v] for v in sorted(line)})
    axes.set_xticks(range(len(ticks)), [str(value) for value in ticks])
    axes.set_xlabel(x)
    axes.set_ylabel("return of the final evaluation (full games)")
    if len(lines) > 1:
        axes.legend(frameon=False)
    _write(figure, path)


def _draw_line(axes: Any, label: str, points: dict[int, list[float]]) -> None:
    seeds = np.array(list(points.values())).T  # [seeds, points]
    half = _half_width(seeds) if len(seeds) > 1 else np.zeros(len(points))
    _draw_band(axes, label, list(points), seeds.mean(0), half)
    color = axes.lines[-1].get_color()
    for returns in seeds:
        axes.plot(list(points), returns, "o", color=color, ms=4, mec="white")


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _write(figure: Any, path: str) -> None:
    from matplotlib.backends import backend_agg

    image = io.BytesIO()
    backend_agg.FigureCanvasAgg(figure).print_png(image)
    files.write_atomically(path, image.getvalue(), durable=False)
