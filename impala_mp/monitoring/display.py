"""Display of a run: a live table on a terminal, plain lines elsewhere."""

import contextlib
import math
import time
from typing import Any

import rich.console
import rich.live
import rich.progress
import rich.table

from impala_mp.storage import files

Record = dict[str, float]

_PLAIN_INTERVAL_SECS = 5.0  # between lines where there is no terminal


def _number(value: float | None, digits: int = 0) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if digits and 0.0 < abs(value) < 0.1**digits:  # it would be printed as 0
        return f"{value:.{digits}g}"
    return f"{value:,.{digits}f}"


def _digits(value: float | None) -> int:
    return 0 if value is not None and abs(value) >= 1000 else 2


def _split(record: Record, prefix: str) -> str:
    """Formats the keys under a prefix as `wait 12 %, update 80 %`."""
    shares = {
        key.removeprefix(prefix): value
        for key, value in record.items()
        if key.startswith(prefix)
    }
    return ", ".join(f"{k} {_number(100 * v)} %" for k, v in shares.items()) or "–"


def _returns(record: Record) -> str:
    mean, low, high = (
        record.get(f"episode/return_{name}") for name in ("mean", "min", "max")
    )
    digits = _digits(high)
    text = f"{_number(mean, digits)} ({_number(low, digits)} … {_number(high, digits)})"
    if "evaluation/return_mean" in record:
        text += f", evaluation {_number(record['evaluation/return_mean'], digits)}"
    return text


def rows(record: Record) -> list[tuple[str, str]]:
    """Returns the lines of the live display as (label, text)."""
    get = record.get
    return [
        ("return of the last 100 games", _returns(record)),
        (
            "throughput",
            f"{_number(get('throughput/agent_steps_per_sec'))} agent steps/s,"
            f" {_number(get('throughput/env_frames_per_sec'))} frames/s,"
            f" {_number(get('throughput/updates_per_sec'), 1)} updates/s",
        ),
        (
            "policy lag",
            f"{_number(get('lag/mean'), 1)} updates, at most {_number(get('lag/max'))}",
        ),
        ("learner's time", _split(record, "time/learner_")),
        ("actors' time", _split(record, "time/actor_")),
        (
            "processes",
            f"{_number(get('health/processes_alive'))} of"
            f" {_number(get('health/processes_total'))} alive,"
            f" {_number(get('health/restarts'))} restarts",
        ),
        (
            "trajectories",
            f"{_number(get('health/committed'))} ="
            f" {_number(get('health/learned'))} learned +"
            f" {_number(get('health/discarded'))} discarded +"
            f" {_number(get('health/in_flight'))} in flight",
        ),
    ]


def plain(record: Record, total_agent_steps: int) -> str:
    """Formats a record as one log line."""
    steps = int(record["agent_steps"])
    mean = record.get("episode/return_mean")
    return (
        f"agent steps {steps:,} of {total_agent_steps:,}"
        f" ({100 * steps / total_agent_steps:.0f} %)"
        f"  return {_number(mean, _digits(mean))}"
        f"  {_number(record.get('throughput/agent_steps_per_sec'))} agent steps/s"
        f"  {_number(record.get('throughput/updates_per_sec'), 1)} updates/s"
        f"  lag {_number(record.get('lag/mean'), 1)}"
        f"  alive {_number(record.get('health/processes_alive'))}"
        f"  restarts {_number(record.get('health/restarts'))}"
    )


class Display:
    """Context manager that shows records (`update`) and sentences (`message`)."""

    def __init__(
        self,
        title: str,
        total_agent_steps: int,
        console: rich.console.Console | None = None,
        log: str | None = None,
    ) -> None:
        """`log` is a file for the messages, with their time."""
        self._log = log
        self._total = total_agent_steps
        self._console = console or rich.console.Console()
        self._record: Record = {}
        self._bottleneck = ""
        self._printed = -math.inf
        self._pending = False
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("[bold]{task.description}"),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task(title, total=total_agent_steps)
        self._live: Any = None

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live = rich.live.Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=4,
            )
            self._live.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._pending:
            self._print()

    def update(self, record: Record, bottleneck: str = "") -> None:
        """Shows the newest record; missing keys appear as –."""
        self._record, self._bottleneck = record, bottleneck
        self._progress.update(self._task, completed=record["agent_steps"])
        if self._live is not None:
            return
        self._pending = True
        if time.monotonic() - self._printed >= _PLAIN_INTERVAL_SECS:
            self._print()

    def message(self, text: str) -> None:
        """Prints a sentence above the live display, and appends it to the log."""
        self._show(text)
        if self._log is not None:
            with contextlib.suppress(OSError):
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                files.append(self._log, f"{now} {text}\n")

    def _show(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _print(self) -> None:
        self._show(plain(self._record, self._total))
        self._printed, self._pending = time.monotonic(), False

    def _render(self) -> rich.table.Table:
        table = rich.table.Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for label, text in rows(self._record):
            table.add_row(label, text)
        table.add_row("bottleneck", self._bottleneck or "–")
        whole = rich.table.Table.grid(expand=True)
        whole.add_row(self._progress)
        whole.add_row(table)
        return whole
