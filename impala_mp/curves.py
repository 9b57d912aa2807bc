"""Learning curves: several runs and seeds, with confidence bands."""

import os
from typing import Any

import numpy as np

from impala_mp import errors, metrics

_POINTS = 400  # of a band
_LABELS = {
    "agent_steps": "agent steps",
    "env_frames": "environment frames",
    "time_secs": "seconds of training",
    "updates": "updates",
    "episode/return_mean": "episode return (full game, mean of the last 100)",
    "throughput/agent_steps_per_sec": "agent steps a second",
}
# 97.5 % points of Student's t, by degrees of freedom from 1; then the normal's.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)

Series = tuple[np.ndarray, np.ndarray]


def load(folder: str, x: str, key: str) -> Series:
    """(x, y) of one run.

    Raises:
      BadInput: it has no such numbers.
    """
    records = [r for r in metrics.read(folder) if x in r and key in r]
    if not records:
        known = sorted({k for r in metrics.read(folder) for k in r})
        raise errors.BadInput(
            f"{folder} has no metrics with {x} and {key}; it has"
            f" {', '.join(known) or 'none at all'}."
        )
    return np.array([r[x] for r in records]), np.array([r[key] for r in records])


def band(series: list[Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, mean, half width) over the range that all runs cover.

    The half width is Student's 95 % confidence interval of the mean over seeds.
    """
    low = max(x[0] for x, _ in series)
    high = min(x[-1] for x, _ in series)
    grid = np.linspace(low, high, _POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in series])
    count = len(series)
    t = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else 1.96
    half = t * values.std(0, ddof=1) / count**0.5
    return grid, values.mean(0), half


def _draw(axes: Any, label: str, folders: list[str], x: str, key: str) -> None:
    series = [load(folder, x, key) for folder in folders]
    if len(series) == 1:
        axes.plot(*series[0], label=label)
    else:
        grid, mean, half = band(series)
        (line,) = axes.plot(grid, mean, label=f"{label} ({len(series)} seeds)")
        color = line.get_color()
        axes.fill_between(grid, mean - half, mean + half, color=color, alpha=0.2, lw=0)
    if key == "episode/return_mean":
        _draw_evaluations(axes, folders, x)


def _draw_evaluations(axes: Any, folders: list[str], x: str) -> None:
    key = "evaluation/return_mean"
    points = [(r[x], r[key]) for f in folders for r in metrics.read(f) if key in r]
    if points:
        color = axes.lines[-1].get_color()
        axes.plot(*zip(*points, strict=True), "o", color=color, ms=4, mec="white")


def plot(
    groups: dict[str, list[str]],
    path: str,
    key: str = "episode/return_mean",
    x: str = "agent_steps",
) -> None:
    """Writes a PNG: a line for each group of runs (its seeds), evaluations as dots.

    Raises:
      BadInput: a folder lacks the numbers.
    """
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, folders in groups.items():
        _draw(axes, label, folders, x, key)
    axes.set_xlabel(_LABELS.get(x, x))
    axes.set_ylabel(_LABELS.get(key, key))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    temporary = f"{path}.writing"
    with open(temporary, "wb") as file:
        backend_agg.FigureCanvasAgg(figure).print_png(file)
    os.replace(temporary, path)
