"""Style, axes, legend and files of pictures. They need no display."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from impala_mp import errors
from impala_mp.storage import files

# Okabe and Ito's colours, which are distinct for colour-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
_STYLES = ("-", "--", ":", "-.")  # of lines beyond the colours
_ENDINGS = (".png", ".svg")
_PIXELS_PER_INCH = 160  # 1280 x 720
_MAX_RATIO = 8.0  # of the mean's extreme to that of most games, on a linear axis
_MAX_LABEL = 60  # characters
_LEGEND_ROW = 120  # characters


class Axis(NamedTuple):
    """Limits of the y axis. It is logarithmic beyond ±`linear`, unless that is None."""

    low: float
    high: float
    linear: float | None = None


def check_ending(flag: str, path: str) -> None:
    """Raises BadInput unless `path` can be written as a picture."""
    if not path.endswith(_ENDINGS):
        raise errors.BadInput(
            f"{flag} ({path!r}) must end in {' or '.join(_ENDINGS)}. Name such a file."
        )


def make() -> tuple[Any, Any]:
    """Returns a figure and its axes."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8, 4.5), dpi=_PIXELS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def style(index: int) -> dict[str, Any]:
    """Returns colour and style of a line, by its place among the lines."""
    dashes = index // len(COLORS) % len(_STYLES)
    return {"color": COLORS[index % len(COLORS)], "ls": _STYLES[dashes]}


def label(text: str) -> str:
    """Returns a label that a picture shows as it is: one line, and not too long."""
    line = " ".join(files.visible(str(text)).split())
    line = line if len(line) <= _MAX_LABEL else f"{line[: _MAX_LABEL - 1]}…"
    return f" {line}" if line.startswith("_") else line  # a legend would hide it


def y_axis(
    means: np.ndarray, others: np.ndarray, usual: np.ndarray, near: np.ndarray
) -> Axis:
    """Returns limits that hide no mean, and are not flattened by outliers.

    Args:
      means, others: values that are inside; at least one mean.
      usual: range of most games, also inside; empty if unknown. Means far beyond it
        and the others make the axis logarithmic there.
      near: values that are inside if at least half of the axis is left for the rest.
    """
    inside = np.concatenate([means, others, usual])
    inside = inside[np.isfinite(inside)]
    low, high = float(inside.min()), float(inside.max())
    most = float(np.nanmax(np.abs([*others, *usual]), initial=0.0))
    if len(usual) and 0 < _MAX_RATIO * most < max(-low, high):
        low = 1.5 * low if low < -most else low - 0.1 * most
        high = 1.5 * high if high > most else high + 0.1 * most
        return Axis(low, high, most)
    span = high - low
    inside = near[(near >= low - span / 2) & (near <= high + span / 2)]
    low, high = float(inside.min(initial=low)), float(inside.max(initial=high))
    span, size = high - low, max(abs(low), abs(high))
    margin = 0.06 * span if span > 1e-6 * size else size / 2 or 1.0
    return Axis(low - margin, high + margin)


def set_x(axes: Any, name: str, high: float | None) -> None:
    """Names the x axis. It begins at 0 if `high`, its other end, is not None."""
    axes.set_xlabel(label(name), parse_math=False)
    if high is not None:
        axes.set_xlim(0.0, 1.02 * high if high > 0 else 1.0)
        if high >= 1e3:
            axes.xaxis.set_major_formatter(_thousands())


def set_y(axes: Any, name: str, axis: Axis) -> None:
    if axis.linear is not None:
        axes.set_yscale("symlog", linthresh=axis.linear)
        name = f"{name} (log beyond {axis.linear:.2g})"
    axes.set_ylim(axis.low, axis.high)
    axes.set_ylabel(label(name), parse_math=False)
    if max(-axis.low, axis.high) >= 1e4:
        axes.yaxis.set_major_formatter(_thousands())


def _thousands() -> Any:
    """Returns the format of large numbers: 200k, 1.5M."""
    from matplotlib import ticker

    return ticker.EngFormatter(sep="")


def add_legend(figure: Any, handles: Sequence[Any]) -> None:
    """Adds the legend of what has a label, below the axes, where it covers nothing."""
    handles = [each for each in handles if not each.get_label().startswith("_")]
    if not handles:
        return
    longest = max(len(each.get_label()) for each in handles)
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(handles), _LEGEND_ROW // (longest + 6))),
        frameon=False,
        fontsize="small",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def write(figure: Any, path: str) -> None:
    """Writes a PNG, or an SVG if the path ends so.

    Raises:
      OSError: it cannot be written.
    """
    import matplotlib
    from matplotlib.backends import backend_agg, backend_svg

    image = io.BytesIO()
    if path.endswith(".svg"):
        canvas: Any = backend_svg.FigureCanvasSVG(figure)
        with matplotlib.rc_context({"svg.hashsalt": path[-4:]}):  # no random names
            canvas.print_svg(image, metadata={"Date": None})
    else:
        backend_agg.FigureCanvasAgg(figure).print_png(image)
    figure.set_layout_engine("none")  # the next format has the same places
    files.write_atomically(path, image.getvalue(), durable=False)
