"""Dashboard of a run: lines of text that fit a terminal of any size."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import rich.console
import rich.text

from impala_mp.monitoring import blocks, bottleneck, formats, history, run_state
from impala_mp.storage import files

_MIN_COLUMNS_WIDTH, _MIN_COLUMNS_HEIGHT = 72, 20  # below: the compact form
_TALL = 32  # terminals of as many rows have more rows of numbers
_SECTION_WIDTH, _GAP = 23, 3  # at least, of a column of numbers; between columns
_ROWS = 6  # of a section; more where the terminal is tall
_AXIS = 9  # columns left of a curve
_MAX_CURVE = 14  # rows
_TWO_CURVES = 11  # rows that are enough for two
_WRAPPER = rich.console.Console()  # rich wraps with one, and does not ask it


class _Marks(NamedTuple):
    """Characters of a frame and its lines."""

    corners: str  # top left, top right, bottom left, bottom right
    horizontal: str
    vertical: str
    done: str
    rest: str
    dot: str
    to: str
    about: str
    cut: str


_UNICODE = _Marks("╭╮╰╯", "─", "│", "━", "─", "·", "…", "±", "…")
_ASCII = _Marks("++++", "-", "|", "=", "-", "-", "..", "+-", "~")


def lines(
    state: run_state.RunState,
    width: int,
    height: int,
    ascii_only: bool = False,
    sick: Sequence[str] = (),
    messages: Sequence[str] = (),
) -> list[rich.text.Text]:
    """Returns at most `height` lines of at most `width` cells each.

    Args:
      sick: a line for each process that is not well, shown in red.
      messages: sentences, oldest first; the newest stand under the box.
    """
    page = _Page(state, width, height, ascii_only)
    return page.lines(sick, messages)


class _Page:
    """One frame of the dashboard."""

    def __init__(
        self, state: run_state.RunState, width: int, height: int, ascii_only: bool
    ) -> None:
        self._state, self._width, self._height = state, width, height
        self._record, self._facts = state.record, state.facts
        self._ascii, self._marks = ascii_only, _ASCII if ascii_only else _UNICODE
        self._inner = width - 4
        self._compact = width < _MIN_COLUMNS_WIDTH or height < _MIN_COLUMNS_HEIGHT

    def lines(
        self, sick: Sequence[str], messages: Sequence[str]
    ) -> list[rich.text.Text]:
        if self._width < 24 or self._height < 5:
            return [self._fitted(self._progress_text(), self._width)][: self._height]
        below = 0 if self._compact else max(3, self._height // 6)
        box = self._boxed(self._body(self._height - 2 - below, sick))
        return [*box, *self._messages(messages, self._height - len(box))]

    def _body(self, budget: int, sick: Sequence[str]) -> list[rich.text.Text]:
        """Returns the lines in the box, at most `budget`; the curve takes the rest."""
        head = [self._title(), self._progress()][:budget]
        games = [self._games()][: budget - len(head)]
        left = budget - len(head) - len(games)
        red = [self._text(each, "bold red") for each in sick][: (left + 3) // 4]
        left -= len(red)
        numbers = self._numbers(left - 3)
        left -= len(numbers)
        limit = self._limit(min(2 if self._height < 36 else 3, left - 2))
        left -= len(limit)
        return [*head, *self._curves(left, games), *numbers, *red, *limit]

    def _text(self, text: str, style: str = "") -> rich.text.Text:
        """Returns text without control characters, in ASCII where necessary."""
        shown = files.visible(text).replace("\n", " ")
        if self._ascii:
            shown = shown.encode("ascii", "backslashreplace").decode()
        return rich.text.Text(shown, style, no_wrap=True)

    def _joined(self, parts: Iterable[tuple[str, str]]) -> rich.text.Text:
        line = self._text("")
        for text, style in parts:
            line.append_text(self._text(text, style))
        return line

    def _fitted(self, line: rich.text.Text, width: int) -> rich.text.Text:
        """Returns a line of exactly `width` cells."""
        if line.cell_len > width:
            line.truncate(width - len(self._marks.cut))
            line.append(self._marks.cut)
        line.truncate(width, pad=True)
        return line

    def _spread(
        self, left: rich.text.Text, right: rich.text.Text, width: int
    ) -> rich.text.Text:
        """Returns a line with one text at each end; the right one is whole."""
        room = max(0, width - right.cell_len - 1)
        right = self._fitted(right, min(width, right.cell_len))
        return self._fitted(left, room).append(" ").append_text(right)

    def _boxed(self, body: list[rich.text.Text]) -> list[rich.text.Text]:
        marks, style = self._marks, "cyan"
        rule = marks.horizontal * (self._width - 2)
        side = self._joined([(marks.vertical, style)])
        top, bottom = (
            self._joined([(f"{a}{rule}{b}", style)])
            for a, b in (marks.corners[:2], marks.corners[2:])
        )
        middle = [
            side.copy()
            .append(" ")
            .append_text(self._fitted(line, self._inner))
            .append(" ")
            .append_text(side)
            for line in body
        ]
        return [top, *middle, bottom]

    def _title(self) -> rich.text.Text:
        facts, dot = self._facts, f" {self._marks.dot} "
        rest = [facts.algorithm]
        if facts.parameters:
            rest.append(f"{facts.parameters:,} parameters")
        if facts.seed is not None:
            rest.append(f"seed {facts.seed}")
        text = "".join(f"{dot}{each}" for each in rest if each)
        left = self._joined([(facts.environment, "bold cyan"), (text, "")])
        right = self._text(facts.folder)
        room = self._inner - left.cell_len - 2
        if right.cell_len > room:
            if room < 12:
                return left
            tail = right.plain[len(self._marks.cut) - room :]
            right = self._text(f"{self._marks.cut}{tail}")
        return self._spread(left, right, self._inner)

    def _progress_text(self) -> rich.text.Text:
        total = formats.short(self._facts.total_agent_steps)
        line = self._text(f"{100 * self._state.share():.1f}% of {total} steps")
        if left := self._state.left():
            line.append_text(self._text(f"  {left} left", "bold"))
        return line

    def _progress(self) -> rich.text.Text:
        right = self._progress_text()
        room = max(0, self._inner - right.cell_len - 2)
        done = round(room * self._state.share())
        bar = self._joined(
            [
                (self._marks.done * done, "cyan"),
                (self._marks.rest * (room - done), "bright_black"),
                ("  ", ""),
            ]
        )
        return bar.append_text(right)

    def _games(self) -> rich.text.Text:
        """Returns the line on returns; parts that do not fit are left out."""
        line = self._joined(
            [
                ("return  ", ""),
                (formats.number(self._record.get(history.RETURN), "-"), "bold green"),
            ]
        )
        span = self._state.span(f" {self._marks.to} ")
        parts = [f"last 100 games, {span}" if span else ""]
        best, evaluation = self._state.history.best, self._state.history.evaluation
        if best:
            at = formats.short(best.agent_steps)
            parts.append(f"best {formats.number(best.value)} at {at}")
        if evaluation:
            half = run_state.half_width(evaluation)
            half = f" {self._marks.about}{half}" if half else ""
            parts.append(f"eval {formats.number(evaluation['mean'])}{half}")
        room = self._inner - line.cell_len
        if sum(len(part) + 2 for part in parts) > room:
            parts[0] = span
        for part in filter(None, parts):
            text = self._text(f"  {part}")
            if line.cell_len + text.cell_len <= self._inner:
                line.append_text(text)
        return line

    def _curves(self, budget: int, games: list[rich.text.Text]) -> list[rich.text.Text]:
        """Returns the curve of the return and, where there is room, a second one."""
        second = self._second() if budget >= _TWO_CURVES else None
        if second is None:
            return [*self._curve(history.RETURN, min(budget, _MAX_CURVE)), *games]
        key, caption = second
        first = min(_MAX_CURVE, (budget - 2) * 3 // 5)
        rest = min(_MAX_CURVE, budget - 2 - first)
        return [
            *self._curve(history.RETURN, first),
            *games,
            self._text(""),
            *self._curve(key, rest, "blue"),
            caption,
        ][: budget + len(games)]

    def _curve(
        self, key: str, height: int, style: str = "green"
    ) -> list[rich.text.Text]:
        if height <= 0:
            return []
        xs, ys = self._state.history.series(key)
        if not ys:
            empty = [self._text("") for _ in range(height)]
            text = "no game has ended yet" if self._record else "starting"
            empty[height // 2] = self._text(" " * _AXIS + text)
            return empty
        values = blocks.columns(xs, ys, max(1, self._inner - _AXIS))
        rows = blocks.curve(values, height, self._ascii)
        labels = [""] * height
        if height > 1:
            labels[-1] = formats.number(float(values.min()))
        labels[0] = formats.number(float(values.max()))
        return [
            self._joined([(f"{label:>{_AXIS - 1}} ", ""), (row, style)])
            for label, row in zip(labels, rows, strict=True)
        ]

    def _second(self) -> tuple[str, rich.text.Text] | None:
        """Returns key and caption of the second curve."""
        names = [f"env/{name}" for name in self._state.user_names()]
        for key in (*names, "policy/entropy", "value/explained_variance"):
            if len(self._state.history.series(key)[1]) > 1:
                name = key.partition("/")[2].replace("_", " ")
                value = formats.number(self._record.get(key), "-")
                return key, self._joined([(f"{name}  ", ""), (value, "bold blue")])
        return None

    def _limit(self, max_lines: int) -> list[rich.text.Text]:
        """Returns the bottleneck: its sentences where they fit, else half a line."""
        brief, full = bottleneck.brief(self._record), self._state.bottleneck
        found = self._wrapped(full, self._inner) if full else []
        if self._height < 30 or len(found) > max_lines:
            found = [brief] if brief else found
        return [self._text(each, "italic") for each in found[: max(0, max_lines)]]

    def _wrapped(self, text: str, width: int) -> list[str]:
        whole = rich.text.Text(self._text(text).plain)
        return [line.plain for line in whole.wrap(_WRAPPER, width)]

    def _messages(self, messages: Sequence[str], count: int) -> list[rich.text.Text]:
        """Returns the ends of the newest messages, which stand under the box."""
        if count <= 0:
            return []
        parts = [part for each in messages[-count:] for part in each.split("\n")]
        found = [line for part in parts for line in self._wrapped(part, self._width)]
        return [self._fitted(self._text(each), self._width) for each in found[-count:]]

    def _numbers(self, budget: int) -> list[rich.text.Text]:
        """Returns at most `budget` lines of numbers in columns."""
        state = self._state
        if self._compact:
            return self._pairs(state.essentials(), min(4, budget))
        main = [
            ("Learning", state.learning()),
            ("Speed", state.speed()),
            ("Run", state.run()),
        ]
        more = [("Environment", state.users()), ("Tasks", state.tasks())]
        more = [(title, found) for title, found in more if found]
        across = (self._inner + _GAP) // (_SECTION_WIDTH + _GAP)
        if across >= len(main) + len(more):
            main, more = [*main, *more], []
        elif self._height < _TALL:  # no room for a second row of sections
            main[-1] = ("Run", [*main[-1][1], *state.users()])
            more = []
        found = [each for parts in (main, more) if parts for each in self._part(parts)]
        return found[: max(0, budget)]

    def _part(
        self, sections: list[tuple[str, list[run_state.Row]]]
    ) -> list[rich.text.Text]:
        """Returns a blank line and sections side by side, as long as the longest."""
        limit = _ROWS if self._height < _TALL else _ROWS + 3
        most = max(len(section) for _, section in sections)
        return [self._text(""), *self._columns(sections, min(limit, most))]

    def _pairs(self, rows: list[run_state.Row], count: int) -> list[rich.text.Text]:
        """Returns `count` lines of two numbers each, without headings."""
        if count <= 0:
            return []
        return self._columns([("", rows[::2]), ("", rows[1::2])], count)[1:]

    def _columns(
        self, sections: list[tuple[str, list[run_state.Row]]], rows: int
    ) -> list[rich.text.Text]:
        """Returns sections side by side: their titles, then `rows` lines."""
        width, rest = divmod(self._inner + _GAP, len(sections))
        found = [self._text("") for _ in range(rows + 1)]
        for number, (title, section) in enumerate(sections):
            size = width - _GAP + (rest if number == len(sections) - 1 else 0)
            padded = [*section, *[("", "", "")] * rows][:rows]
            cells = [self._text(title, "bold cyan")]
            cells += [
                self._spread(self._text(label), self._text(value, style), size)
                for label, value, style in padded
            ]
            for line, cell in zip(found, cells, strict=True):
                line.append(" " * (_GAP * (number > 0)))
                line.append_text(self._fitted(cell, size))
        return found
