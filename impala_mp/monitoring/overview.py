"""Table of all runs in a folder, a line each, as `impala-status` prints it."""

import os
import time

import rich.console
import rich.table
import rich.text

from impala_mp import errors
from impala_mp.monitoring import formats, history, status
from impala_mp.storage import files

_MAX_DEPTH = 3
_MAX_FOLDERS = 10_000  # that are searched
_COLUMNS = ("run", "state", "progress", "return", "evaluation", "steps/s", "age")
_COLOURS = {"running": "green", "finished": "", "stopped": "yellow"}


def is_folder_of_runs(path: str) -> bool:
    """Returns whether `path` is no run itself, but has runs."""
    return not _is_run(path) and bool(find(path))


def find(path: str) -> list[str]:
    """Returns the folders of the runs in `path`, at most three levels deep.

    Links are not followed. Folders that cannot be read have no runs.
    """
    found, level, searched = [], [path], 0
    for _ in range(_MAX_DEPTH):
        folders = [each for parent in level for each in _folders(parent)]
        searched += len(folders)
        if searched > _MAX_FOLDERS:
            raise errors.BadInput(
                f"{path} has more than {_MAX_FOLDERS:,} folders. Name the folder of the"
                " runs."
            )
        found += [each for each in folders if _is_run(each)]
        level = [each for each in folders if not _is_run(each)]
    return sorted(found)


def _is_run(path: str) -> bool:
    return any(
        os.path.lexists(os.path.join(path, name))
        for name in ("health.json", "config.json")
    )


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [e.path for e in entries if e.is_dir(follow_symlinks=False)]
    except (OSError, ValueError):
        return []


def read(path: str) -> status.StatusReport:
    """Reports on all runs in `path`; it is healthy if all are.

    A run that cannot be read has a line, too.
    """
    table = rich.table.Table(box=None, pad_edge=False)
    for number, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    running, healthy, sentences = False, True, []
    for folder in find(path):
        name = os.path.relpath(folder, path)
        try:
            run = status.load(folder)
        except errors.BadInput as error:
            table.add_row(_text(name), _text("unreadable", "red"))
            sentences.append(_text(f"{name}: {error}"))
            healthy = False
            continue
        style = _COLOURS.get(run.verdict.state, "bold red")
        cells = [_text(name), _text(run.verdict.state, style)]
        table.add_row(*cells, *map(_text, _numbers(run)))
        running |= run.verdict.is_running
        healthy &= run.verdict.is_healthy
    return status.StatusReport(rich.console.Group(table, *sentences), running, healthy)


def _numbers(run: status.Run) -> list[str]:
    """Returns the cells after the state."""
    state = run.state
    steps = state.record.get("agent_steps")
    progress = formats.short(steps, "-")
    if steps is not None and state.facts.total_agent_steps:
        total = formats.short(state.facts.total_agent_steps)
        progress = f"{100 * state.share():.1f} % of {total}"
    return [
        progress,
        formats.number(state.record.get(history.RETURN), "-"),
        formats.number(run.evaluation().get("mean"), "-"),
        formats.short(state.history.speed(), "-"),
        formats.age(max(0.0, time.time() - run.health["time"])),
    ]


def _text(value: str, style: str = "") -> rich.text.Text:
    return rich.text.Text(files.visible(value), style)
