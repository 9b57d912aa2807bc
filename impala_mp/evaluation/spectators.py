"""Spectators of an agent: a terminal, plain lines, or a window."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import rich.color
import rich.console
import rich.live
import rich.style
import rich.table
import rich.text
from PIL import Image

from impala_mp import errors, nest, types
from impala_mp.networks.distributions import base

_SIDE = 44  # columns beside a picture
_BAR = 20  # characters of a probability of 1


class Part(NamedTuple):
    """Action of one player in a moment, with the policy and value of the agent."""

    player: str  # "" without other players
    elements: list[base.Element]  # of the policy
    action: types.Nest  # arrays, as the environment takes it
    acts: bool  # False: the action is ignored
    value: float
    reward: float  # of the step that led here
    episode_return: float  # so far


class Moment(NamedTuple):
    """One row of an episode."""

    task: str  # "" if there is only one
    episode: int  # from 1
    step: int  # of the episode, from 0
    picture: np.ndarray | None  # uint8 [H, W, 3]
    without: str  # why there is no picture; "" if there is, or if none is drawn
    observation: types.Nest  # arrays of one copy
    parts: list[Part]  # of each player
    over: bool

    @property
    def elements(self) -> list[base.Element]:
        """The policy of each player that acts, by name."""
        return [
            element._replace(name=f"{part.player} {element.name}".strip())
            for part in self.parts
            if part.acts or not part.player
            for element in part.elements
        ]


class Spectator(Protocol):
    """Context manager that shows one moment after the other."""

    def __enter__(self) -> "Spectator": ...

    def __exit__(self, *unused: object) -> None: ...

    def show(self, moment: Moment) -> bool:
        """Returns False if the window is closed."""


# Words.


def _words(structure: types.Nest, separator: str = ", ") -> str:
    """Formats a nest as `arm/0 [1, 0], gears [2, 1]`; numbers with three digits."""
    parts = [
        f"{path} {_numbers(leaf)}".lstrip()
        for path, leaf in nest.flatten_with_path(structure)
    ]
    return separator.join(parts)


def _numbers(array: Any) -> str:
    return np.array2string(
        np.asarray(array),
        separator=", ",
        threshold=100,
        formatter={"float_kind": lambda x: f"{x:.3g}"},
    )


def _facts(moment: Moment) -> list[tuple[str, str]]:
    return [
        *([("task", moment.task)] if moment.task else []),
        ("episode", str(moment.episode)),
        ("step", str(moment.step)),
        *(fact for part in moment.parts for fact in _facts_of(part)),
    ]


def _facts_of(part: Part) -> list[tuple[str, str]]:
    """Returns the facts of a player; as a single one if it has a name."""
    facts = [
        ("action", _words(part.action) if part.acts else "–"),
        ("value", f"{part.value:.3f}"),
        ("reward", f"{part.reward:.4g}"),
        ("return", f"{part.episode_return:.4g}"),
    ]
    if not part.player:
        return facts
    return [(part.player, ", ".join(f"{name} {text}" for name, text in facts))]


def _instead(moment: Moment) -> str:
    """Returns the observation, and the reason why there is no picture."""
    return f"{_words(moment.observation, chr(10))}\n{moment.without}".rstrip()


def line(moment: Moment) -> str:
    """Formats a moment as one line, without picture and observation."""
    facts = ", ".join(f"{name} {text}" for name, text in _facts(moment))
    if moment.over:
        return f"{facts}: the episode has ended"
    return f"{facts} | {'; '.join(element.text for element in moment.elements)}"


class Lines:
    """Spectator without a terminal: prints one plain line per moment."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    def show(self, moment: Moment) -> bool:
        self._console.print(
            line(moment), highlight=False, markup=False, soft_wrap=True, emoji=False
        )
        return True


# On a terminal.


def half_blocks(picture: np.ndarray, columns: int, rows: int) -> rich.text.Text:
    """Draws uint8 [H, W, 3] as large as fits, two pixels per character."""
    height, width = picture.shape[:2]
    scale = min(columns / width, 2 * rows / height)
    size = max(1, int(width * scale)), 2 * max(1, int(height * scale / 2))
    how = Image.Resampling.BOX if scale < 1.0 else Image.Resampling.NEAREST
    pixels = np.asarray(Image.fromarray(picture).resize(size, how)).tolist()
    lines = [
        _half_block_line(*pair) for pair in zip(pixels[::2], pixels[1::2], strict=True)
    ]
    return rich.text.Text("\n").join(lines)


def _half_block_line(upper: list[Any], lower: list[Any]) -> rich.text.Text:
    text = rich.text.Text(no_wrap=True)
    for (top, bottom), run in itertools.groupby(zip(upper, lower, strict=True)):
        style = rich.style.Style(
            color=rich.color.Color.from_rgb(*top),
            bgcolor=rich.color.Color.from_rgb(*bottom),
        )
        text.append("▀" * len(list(run)), style)
    return text


class Terminal:
    """Spectator on a terminal: picture or observation, and the agent beside it."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console
        self._live = rich.live.Live(
            console=console, auto_refresh=False, vertical_overflow="crop"
        )

    def __enter__(self) -> "Terminal":
        self._live.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._live.stop()

    def show(self, moment: Moment) -> bool:
        self._live.update(self.render(moment), refresh=True)
        return True

    def render(self, moment: Moment) -> rich.table.Table:
        table = rich.table.Table.grid(padding=(0, 2))
        table.add_row(self._scene(moment), _side(moment))
        return table

    def _scene(self, moment: Moment) -> rich.text.Text:
        columns = max(1, self._console.width - _SIDE)
        if moment.picture is None or self._console.color_system is None:
            return rich.text.Text(_instead(moment))
        return half_blocks(moment.picture, columns, max(1, self._console.height - 2))


def _side(moment: Moment) -> rich.table.Table:
    table = rich.table.Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, text in _facts(moment):
        table.add_row(name, rich.text.Text(text))
    for element in () if moment.over else moment.elements:
        if not element.are_probabilities:
            table.add_row("", rich.text.Text(element.text))
            continue
        for label, number in zip(element.labels, element.numbers, strict=True):
            bar = "█" * round(_BAR * number)
            name = f"{element.name} {label}".lstrip()
            table.add_row(rich.text.Text(name), f"{number:.2f} {bar}")
    return table


# In a window.


class Window:
    """Spectator in a window: picture or observation, and the agent beside it."""

    def __init__(
        self,
        figure: Any,
        pause: Callable[[], None],
        is_open: Callable[[], bool] = lambda: True,
    ) -> None:
        """`pause` lets the window draw itself and react."""
        self._figure, self._pause, self._is_open = figure, pause, is_open
        self._axes, side = figure.subplots(1, 2)
        for axes in (self._axes, side):
            axes.set_axis_off()
        self._image: Any = None
        self._text = side.text(0.0, 1.0, "", va="top", family="monospace")
        self._scene = self._axes.text(0.0, 1.0, "", va="top", family="monospace")

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    def show(self, moment: Moment) -> bool:
        if not self._is_open():
            return False
        lines = [f"{name:<8} {text}" for name, text in _facts(moment)]
        lines += [] if moment.over else [element.text for element in moment.elements]
        self._text.set_text("\n".join(lines))
        self._draw(moment)
        self._pause()
        return True

    def _draw(self, moment: Moment) -> None:
        if moment.picture is None:
            self._scene.set_text(_instead(moment))
        elif self._image is None:
            self._image = self._axes.imshow(moment.picture)
        else:
            self._image.set_data(moment.picture)


def open_window(delay_secs: float) -> Window:
    """Opens a window with matplotlib.

    Raises:
      BadInput: there is no display, or no library to open a window on it.
    """
    import matplotlib
    from matplotlib import pyplot

    try:
        figure = pyplot.figure("impala-play", figsize=(10, 5))
        backend = matplotlib.get_backend()
    except ImportError as error:
        raise _no_window(str(error)) from error
    if backend.lower() not in _interactive(matplotlib):
        pyplot.close(figure)
        raise _no_window(f"matplotlib's backend {backend} can only write files")
    seconds = max(delay_secs, 1e-3)  # 0 would wait forever
    return Window(
        figure,
        lambda: pyplot.pause(seconds),
        lambda: pyplot.fignum_exists(figure.number),
    )


def _interactive(matplotlib: Any) -> set[str]:
    registry = matplotlib.backends.registry
    names = registry.backend_registry.list_builtin(registry.BackendFilter.INTERACTIVE)
    return {name.lower() for name in names}


def _no_window(reason: str) -> errors.BadInput:
    return errors.BadInput(
        f"--window finds no display to open a window on ({reason}). Set DISPLAY, or"
        " omit --window to watch on the terminal."
    )
