"""Learning curves: one run with its games and events, or groups of seeds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from impala_mp.monitoring import figures, run_history
from impala_mp.storage import metrics
from impala_mp.workers import confidence

_POINTS = 400  # of a band over seeds
_MAX_GAMES = 4000  # points of a picture
_MAX_SHAPES = 2000  # points that an SVG has one by one
_LABELS = {
    "agent_steps": "agent steps",
    "env_frames": "environment frames",
    "time_secs": "seconds of training",
    "updates": "updates",
    "episode/return_mean": "return of a full game, mean of the last 100",
    "throughput/agent_steps_per_sec": "agent steps a second",
}
_SEEDS = "lowest to highest seed"
_GREY = "#555555"
_EVALUATION = "#D55E00"  # of a single run
_MARKERS = {"greedy": "D", "sampled": "o", "": "s"}
_EVENTS = {  # marker, colour
    run_history.RESTART: ("|", "#000000"),
    run_history.RESUME: ("^", "#009E73"),
    run_history.CHANGE: ("d", "#CC79A7"),
}


class _Curve(NamedTuple):
    """Line of a picture with its band, NaN where there is none."""

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    evaluations: Mapping[str, run_history.Evaluations] = {}


class _Content(NamedTuple):
    """Data of a picture."""

    name: str  # of the y axis
    curves: list[_Curve]
    band: str  # its label
    games: run_history.Series = (np.zeros(0), np.zeros(0))
    usual: np.ndarray = np.zeros(0)  # range of most games
    random: float | None = None
    events: Mapping[str, np.ndarray] = {}


def band(series: list[run_history.Series]) -> tuple[np.ndarray, ...]:
    """Returns (x, mean, lowest, highest) over the range that all runs cover.

    An interval of the mean would leave the range of possible returns with a few seeds.
    """
    low = max(x[0] for x, _ in series)
    high = min(x[-1] for x, _ in series)
    grid = np.linspace(low, high, _POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in series])
    return grid, values.mean(0), values.min(0), values.max(0)


def plot(
    groups: dict[str, list[str]],
    *paths: str,
    key: str = run_history.RETURN,
    x: str = "agent_steps",
) -> None:
    """Writes a picture with a line for each group of runs (its seeds).

    The learning curve of a single run has its games and other events too.

    Args:
      paths: files that end in .png or .svg; each gets the picture.
      key, x: metrics on the axes.

    Raises:
      BadInput: a folder has no records with both, or a path has another ending.
    """
    for path in paths:
        figures.check_ending("path", path)
    folders = [folder for group in groups.values() for folder in group]
    if key != run_history.RETURN or x not in metrics.COUNTERS:
        content = _of_records(groups, x, key)
    elif len(folders) == 1:
        content = _of_run(run_history.read(folders[0], x))
    else:
        content = _of_groups(groups, x)
    figure, axes = figures.make()
    _set_axes(axes, content, x)
    handles = _draw(axes, content)
    axes.set_title(_title(groups), fontsize="medium", parse_math=False)
    figures.add_legend(figure, handles)
    for path in paths:
        figures.write(figure, path)


def _of_run(history: run_history.History) -> _Content:
    label = f"mean of the last {run_history.LAST_GAMES} games"
    return _Content(
        "return of a full game",
        [_Curve(label, *history.line[:4], history.evaluations)],
        "their lowest to highest fifth",
        history.games,
        history.line.usual,
        history.random,
        history.events,
    )


def _of_groups(groups: dict[str, list[str]], x: str) -> _Content:
    curves, randoms = [], []
    for label, folders in groups.items():
        histories = [run_history.read(folder, x) for folder in folders]
        curve = _curve(label, [(h.line.x, h.line.mean) for h in histories])
        curves.append(curve._replace(evaluations=_merged(histories)))
        randoms += [h.random for h in histories if h.random is not None]
    same = len({run_history.identify(f).environment for f in _all(groups)}) == 1
    random = float(np.mean(randoms)) if randoms and same else None
    return _Content(_LABELS[run_history.RETURN], curves, _SEEDS, random=random)


def _of_records(groups: dict[str, list[str]], x: str, key: str) -> _Content:
    curves = [
        _curve(label, [run_history.load(folder, x, key) for folder in folders])
        for label, folders in groups.items()
    ]
    if len(_all(groups)) == 1:  # the title has its name
        curves = [curves[0]._replace(label="")]
    return _Content(_LABELS.get(key, key), curves, _SEEDS)


def _all(groups: dict[str, list[str]]) -> list[str]:
    return [folder for folders in groups.values() for folder in folders]


def _curve(label: str, series: list[run_history.Series]) -> _Curve:
    """Returns the line of one group."""
    if len(series) == 1:
        x, mean = series[0]
        low = high = np.full(len(x), np.nan)
    else:
        x, mean, low, high = band(series)
        label = f"{label} ({len(series)} seeds)"
    return _Curve(figures.label(label), x, mean, low, high)


def _merged(
    histories: list[run_history.History],
) -> dict[str, run_history.Evaluations]:
    """Returns the evaluations of all seeds, without their intervals."""
    merged = {}
    for policy in sorted({policy for h in histories for policy in h.evaluations}):
        found = [h.evaluations[policy] for h in histories if policy in h.evaluations]
        x = np.concatenate([each.x for each in found])
        mean = np.concatenate([each.mean for each in found])
        unknown = np.full(len(x), np.nan)
        merged[policy] = run_history.Evaluations(x, mean, unknown, unknown)
    return merged


def _set_axes(axes: Any, content: _Content, x: str) -> None:
    """Sets the limits, before anything is drawn."""
    curves = content.curves
    evaluations = [each for c in curves for each in c.evaluations.values()]
    others = [np.array([] if content.random is None else [content.random])]
    others += [values for each in evaluations for values in each[1:]]
    near = [content.games[1], *(values for c in curves for values in (c.low, c.high))]
    limits = figures.y_axis(
        np.concatenate([curve.mean for curve in curves]),
        np.concatenate(others),
        content.usual,
        np.concatenate(near),
    )
    figures.set_y(axes, content.name, limits)
    places = [content.games[0], *content.events.values()]
    places += [each.x for each in (*curves, *evaluations)]
    end = float(np.concatenate(places).max()) if x in metrics.COUNTERS else None
    figures.set_x(axes, _LABELS.get(x, x), end)


def _draw(axes: Any, content: _Content) -> list[Any]:
    """Draws the content; returns the entries of the legend."""
    handles = _draw_games(axes, *content.games)
    colors = [figures.style(i)["color"] for i in range(len(content.curves))]
    for i, curve in enumerate(content.curves):
        handles += axes.plot(
            curve.x, curve.mean, label=curve.label, zorder=3, **figures.style(i)
        )
        area = {"color": colors[i], "alpha": 0.2, "lw": 0, "zorder": 2}
        axes.fill_between(curve.x, curve.low, curve.high, **area)
    return [
        *handles,
        *_band_entry(content, colors),
        *_draw_evaluations(axes, content.curves, colors),
        *_draw_random(axes, content.random),
        *_draw_events(axes, content.events),
    ]


def _draw_games(axes: Any, x: np.ndarray, returns: np.ndarray) -> list[Any]:
    """Draws games as points: at most 4,000, chosen at random with a fixed seed."""
    from matplotlib import lines

    if not len(x):
        return []
    low, high = axes.get_ylim()
    inside = np.flatnonzero((returns >= low) & (returns <= high))
    outside = len(x) - len(inside)
    if len(inside) > _MAX_GAMES:
        lot = np.random.default_rng(0)  # a regular choice could skip a whole task
        inside = np.sort(lot.choice(inside, _MAX_GAMES, replace=False))
    mark = {"color": figures.COLORS[0], "marker": "o", "ls": "", "mew": 0}
    many = len(inside) > _MAX_SHAPES
    axes.plot(
        x[inside], returns[inside], ms=2.5, alpha=0.3, rasterized=many, zorder=1, **mark
    )
    label = f"game ({outside:,} outside the axes)" if outside else "game"
    return [lines.Line2D([], [], label=label, ms=4, alpha=0.6, **mark)]


def _band_entry(content: _Content, colors: list[str]) -> list[Any]:
    from matplotlib import patches

    if not any(np.isfinite(curve.low).any() for curve in content.curves):
        return []
    color = colors[0] if len(colors) == 1 else _GREY
    return [patches.Patch(color=color, alpha=0.2, lw=0, label=content.band)]


def _draw_evaluations(axes: Any, curves: list[_Curve], colors: list[str]) -> list[Any]:
    """Draws evaluations: filled marks if greedy, hollow ones if sampled."""
    from matplotlib import lines

    entries = {}
    for curve, color in zip(curves, colors, strict=True):
        color = color if len(curves) > 1 else _EVALUATION
        for policy, (x, mean, low, high) in curve.evaluations.items():
            mark = {"marker": _MARKERS[policy], "ls": "", "ms": 5, "mec": color}
            mark["mfc"] = "white" if policy == "sampled" else color
            bars = np.stack([mean - low, high - mean])
            axes.errorbar(x, mean, bars, ecolor=color, elinewidth=1, zorder=4, **mark)
            known = ", 95 % interval" if np.isfinite(low).any() else ""
            label = f"{policy} evaluation{known}".strip()
            entries[policy] = lines.Line2D([], [], label=label, **mark)
    if len(curves) > 1:
        for policy, entry in entries.items():
            entry.set(mec=_GREY, mfc="white" if policy == "sampled" else _GREY)
    return list(entries.values())


def _draw_random(axes: Any, mean: float | None) -> list[Any]:
    if mean is None:
        return []
    line = {"color": _GREY, "ls": (0, (5, 4)), "lw": 1}
    axes.axhline(mean, zorder=1.5, **line)
    mark = {"marker": "X", "ms": 6, "mec": "white", "mew": 0.5}
    return axes.plot(
        [0.0], [mean], label="random policy", clip_on=False, zorder=5, **line, **mark
    )


def _draw_events(axes: Any, events: Mapping[str, np.ndarray]) -> list[Any]:
    """Draws events as marks on the x axis."""
    handles: list[Any] = []
    for name, x in events.items():
        marker, color = _EVENTS[name]
        handles += axes.plot(
            x,
            np.full(len(x), 0.02),
            marker,
            color=color,
            ms=6,
            mew=1.5 if marker == "|" else 0,
            label=name,
            transform=axes.get_xaxis_transform(),
            zorder=4,
        )
    return handles


def _title(groups: dict[str, list[str]]) -> str:
    """Returns the environment, algorithm and seed that all runs have in common."""
    runs = [run_history.identify(folder) for folder in _all(groups)]
    common = [x.pop() if len(x) == 1 else "" for x in map(set, zip(*runs, strict=True))]
    if not any(common) and len(runs) == 1:
        return figures.label(next(iter(groups)))
    environment, algorithm, seed = map(figures.label, common)
    counts = {len(folders) for folders in groups.values()}
    seeds = f"seed {seed}" if seed else ""
    if counts != {1}:
        each = " each" if len(groups) > 1 else ""
        seeds = f"{counts.pop()} seeds{each}" if len(counts) == 1 else "several seeds"
    names = [*groups] if len(runs) == 1 else []
    name = figures.label(names[0]) if names and names[0] != common[0] else ""
    return " · ".join(filter(None, (name, environment, algorithm, seeds)))


def plot_against(lines: dict[str, dict[Any, list[float]]], path: str, x: str) -> None:
    """Writes a PNG of final returns against the values of the config's field `x`.

    A line maps each value to the returns of its seeds. They are drawn as dots, with
    their mean and its 95 % confidence interval (Student's t). The values are sorted and
    equally spaced.
    """
    figure, axes = figures.make()
    ticks = sorted({value for line in lines.values() for value in line})
    handles: list[Any] = []
    for i, (label, line) in enumerate(lines.items()):
        points = {ticks.index(v): line[v] for v in sorted(line)}
        handles += _draw_line(axes, label, points, figures.style(i))
    axes.set_xticks(range(len(ticks)), [str(value) for value in ticks])
    axes.set_xlabel(x)
    axes.set_ylabel("return of the final evaluation (full games)")
    figures.add_legend(figure, handles if len(lines) > 1 else [])
    figures.write(figure, path)


def _draw_line(
    axes: Any, label: str, points: dict[int, list[float]], style: dict[str, Any]
) -> list[Any]:
    seeds = np.array(list(points.values())).T  # [seeds, points]
    half = confidence.half_width(seeds)
    x, mean, color = list(points), seeds.mean(0), style["color"]
    handles = axes.plot(x, mean, label=figures.label(label), **style)
    axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, lw=0)
    for returns in seeds:
        axes.plot(x, returns, "o", color=color, ms=4, mec="white")
    return handles
