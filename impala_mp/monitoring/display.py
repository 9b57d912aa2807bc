"""Display of a run: a live dashboard on a terminal, plain lines elsewhere."""

import contextlib
import io
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.live

from impala_mp.monitoring import dashboard, formats, health, history, run_state
from impala_mp.storage import files, metrics

_PLAIN_INTERVAL_SECS = 5.0  # between lines where there is no terminal
_REFRESHES_PER_SEC = 2
_LAST_HEIGHT = 24  # rows of the dashboard that stays on the screen
_MAX_MESSAGES = 1000  # that are repeated at the end; the log has them all
_TIME = "%Y-%m-%d %H:%M:%S"


def plain(state: run_state.RunState) -> str:
    """Formats the newest record as one log line; unknown parts are left out."""
    record, total = state.record, state.facts.total_agent_steps
    evaluation = state.history.evaluation
    left, speed = state.left(), state.history.speed()
    parts = [
        f"{100 * state.share():.1f} %",
        f"{record.get('agent_steps', 0):,.0f} of {total:,} steps",
        f"{left} left" if left else "",
        _named("return", formats.number(record.get(history.RETURN))),
        _named("evaluation", formats.number(evaluation.get("mean"))),
        f"{speed:,.0f} steps/s" if speed is not None else "",
        _named("lag", formats.small(record.get("lag/mean"))),
    ]
    parts += [f"{label} {value}" for label, value, _ in state.trouble()]
    return "  ".join([time.strftime(_TIME), *filter(None, parts)])


def _named(name: str, value: str) -> str:
    return f"{name} {value}" if value else ""


class Display:
    """Context manager that shows records (`update`) and sentences (`message`).

    On a terminal, the dashboard is on the alternate screen: no resize can repeat it.
    At the end, all sentences and the last dashboard are printed on the normal one.
    """

    def __init__(
        self,
        facts: run_state.Facts,
        console: rich.console.Console | None = None,
        log: str | None = None,
    ) -> None:
        """Reads the records of earlier runs in `facts.folder`.

        Args:
          log: file for the messages, with their time.

        Raises:
          BadInput: the records cannot be read.
        """
        self._log, self._facts = log, facts
        self._console = console or rich.console.Console(file=sys.stdout)
        self._history = history.History()
        for record in metrics.records(facts.folder) if facts.folder else ():
            self._history.add(record)
        self._bottleneck = ""
        self._checkpoint_age: float | None = None
        self._statuses: Sequence[health.Status] = ()
        self._messages: list[str] = []
        self._updated = -math.inf
        self._printed = -math.inf
        self._pending = False
        self._is_running = True
        self._live: Any = None
        self._redirected = contextlib.ExitStack()

    def __enter__(self) -> "Display":
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = rich.live.Live(
                get_renderable=self._render,
                console=self._console,
                screen=True,
                refresh_per_second=_REFRESHES_PER_SEC,
                redirect_stdout=False,  # rich would print under the dashboard
                redirect_stderr=False,
            )
            self._live.start()
            for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
                self._redirected.enter_context(redirect(_Lines(self)))
        return self

    def __exit__(self, *unused: object) -> None:
        self._is_running = False
        if self._live is not None:
            self._redirected.close()
            self._live.stop()
            for text in self._messages:
                self._show(text)
            if self._history.last:
                self._console.print(self._frame(_LAST_HEIGHT, messages=False))
        elif self._pending:
            self._print()

    def update(self, record: dict[str, float], bottleneck: str = "") -> None:
        """Shows the newest record; missing keys are left out."""
        self._history.add(record)
        self._bottleneck, self._updated = bottleneck, time.monotonic()
        if self._live is not None:
            return
        self._pending = True
        if time.monotonic() - self._printed >= _PLAIN_INTERVAL_SECS:
            self._print()

    def processes(self, statuses: Sequence[health.Status]) -> None:
        """Takes the processes, and shows those that are not well."""
        self._statuses = statuses
        if self._live is not None and self._facts.folder:
            self._checkpoint_age = run_state.checkpoint_age(self._facts.folder)

    def message(self, text: str) -> None:
        """Shows a sentence, and appends it to the log."""
        if self._live is None:
            self._show(text)
        else:
            self._messages = [*self._messages, text][-_MAX_MESSAGES:]
        if self._log is not None:
            with contextlib.suppress(OSError):
                files.append(self._log, f"{time.strftime(_TIME)} {text}\n")

    def _show(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _print(self) -> None:
        self._show(plain(self._state()))
        self._printed, self._pending = time.monotonic(), False

    def _state(self) -> run_state.RunState:
        age = time.monotonic() - self._updated
        return run_state.RunState(
            self._facts,
            self._history,
            self._bottleneck,
            age if math.isfinite(age) else 0.0,
            self._checkpoint_age,
            self._is_running,
        )

    def _render(self) -> rich.console.Group:
        return self._frame(self._console.height)

    def _frame(self, height: int, messages: bool = True) -> rich.console.Group:
        lines = dashboard.lines(
            self._state(),
            self._console.width,
            min(height, self._console.height),
            self._console.options.ascii_only,
            health.sick(self._statuses),
            self._messages if messages else (),
        )
        return rich.console.Group(*lines)


class _Lines(io.TextIOBase):
    """Standard output while the dashboard is shown: lines become messages."""

    def __init__(self, display: Display) -> None:
        self._display, self._line = display, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._line = (self._line + text).split("\n")
        for line in whole:
            self._display.message(line)
        return len(text)
