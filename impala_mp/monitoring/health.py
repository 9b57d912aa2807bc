"""Writes health.json; renders it and the newest metrics as a table and a verdict."""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import rich.console
import rich.table
import rich.text

from impala_mp import errors
from impala_mp.monitoring import display
from impala_mp.storage import files, metrics, workdir

_KEYS = {"time", "bottleneck", "stall", "processes"}
_STALE_SECS = 15.0  # health.json is rewritten every 5 s, if the disk has space


class Status(NamedTuple):
    """One process in health.json."""

    role: str
    index: int
    pid: int
    incarnation: int
    state: str
    restarts: int
    heartbeat_age_secs: float
    reason: str  # of the last restart


_SICK = ("hung", "lost")


def sick(statuses: Sequence[Status]) -> list[str]:
    """Returns a line for each process that is not well."""
    return [
        f"{each.role} {each.index}: {each.state}, last sign of life"
        f" {each.heartbeat_age_secs:.0f} s ago"
        + (f"; {each.reason}" if each.reason else "")
        for each in statuses
        if each.state in _SICK
    ]


class HealthReport(NamedTuple):
    """Content and verdict of `impala-status`."""

    table: rich.console.Group
    running: bool
    healthy: bool


def write(folder: str, health: dict[str, Any]) -> None:
    """Replaces health.json in `folder`.

    Raises:
      OSError: the disk is full. The file's time still shows a live supervisor.
    """
    path = os.path.join(folder, "health.json")
    try:
        files.write_atomically(path, json.dumps(health, indent=1) + "\n", durable=False)
    except OSError:
        with contextlib.suppress(OSError):
            os.utime(path)  # takes no space
        raise


def read(path: str) -> HealthReport:
    """Reads the state of the run in `path`.

    Raises:
      BadInput: there is no run, or it is from another version.
    """
    health = _load(path)
    record = metrics.last(path)
    state = health["processes"][0]["state"]
    running = state == "running" and workdir.is_live(path)
    sentence, healthy = _judge_live(path, health) if running else _judge_ended(state)
    parts = [*_parts(health, record), *filter(None, [sentence])]
    return HealthReport(rich.console.Group(*parts), running, healthy)


def _judge_live(path: str, health: dict[str, Any]) -> tuple[str, bool]:
    """Returns a sentence on the supervisor ("" if it is well), and healthy or not."""
    now = time.time()
    age = now - health["time"]
    touched = now - os.path.getmtime(os.path.join(path, "health.json"))
    if min(age, touched) > _STALE_SECS:
        return f"The supervisor is alive but silent for {touched:.0f} s.", False
    sick = [p for p in health["processes"] if p["state"] in _SICK]
    healthy = not sick and not health["stall"]
    if age > _STALE_SECS:
        return f"The run continues. This is {age:.0f} s old: is the disk full?", healthy
    return "", healthy


def _judge_ended(state: str) -> tuple[str, bool]:
    if state == "running":
        return "The supervisor was killed.", False
    return "", state in ("finished", "stopped")


def _load(path: str) -> dict[str, Any]:
    """Loads health.json and checks its values."""
    workdir.check_name(path)
    try:
        health = files.read_json(os.path.join(path, "health.json"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.BadInput(
            f"{path} has no health.json. Name the --workdir of a run."
        ) from error
    except OSError as error:
        raise errors.BadInput(
            f"health.json in {path} cannot be read ({error}). Name another run."
        ) from error
    except ValueError as error:
        raise errors.BadInput(
            f"health.json in {path} is half-written or damaged ({error}). A live run"
            " rewrites it every few seconds."
        ) from error
    if not _is_whole(health):
        raise errors.BadInput(
            f"health.json in {path} was written by another version of impala-train,"
            " or was edited. Use the impala-status of that version, or resume the run"
            " first."
        )
    return health


def _is_whole(health: Any) -> bool:
    if not (isinstance(health, dict) and health.keys() >= _KEYS):
        return False
    processes, live = health["processes"], health.get("live", [])
    return (
        files.is_number(health["time"])
        and all(isinstance(health[name], str) for name in ("bottleneck", "stall"))
        and isinstance(live, list)
        and all(isinstance(line, str) for line in live)
        and isinstance(processes, list)
        and bool(processes)
        and all(map(_is_process, processes))
    )


def _is_process(each: Any) -> bool:
    """Returns whether JSON is the status of a process."""
    if not (isinstance(each, dict) and each.keys() >= {*Status._fields}):
        return False
    return all(
        isinstance(each[name], str) if kind is str else files.is_number(each[name])
        for name, kind in Status.__annotations__.items()
    )


def _parts(health: dict[str, Any], record: dict[str, float]) -> list[Any]:
    table = rich.table.Table(box=None, pad_edge=False)
    for column in ("role", "pid", "incarnation", "state", "heartbeat", "restarts", ""):
        table.add_column(column)
    for each in health["processes"]:
        table.add_row(
            *map(
                _text,
                (
                    f"{each['role']} {each['index']}",
                    each["pid"] or "–",
                    each["incarnation"],
                    each["state"],
                    f"{each['heartbeat_age_secs']:.1f} s",
                    each["restarts"],
                    each["reason"],
                ),
            )
        )
    lines = [f"{label}: {text}" for label, text in display.rows(record) if record]
    lines += health.get("live", [])
    lines += [text for text in (health["bottleneck"], health["stall"]) if text]
    return [table, *map(_text, lines)]


def _text(value: Any) -> rich.text.Text:
    """Returns a value of a file as text, without markup and control characters."""
    return rich.text.Text(files.visible(str(value)))
