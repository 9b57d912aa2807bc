"""Writes health.json; renders it and the newest metrics as a table and a verdict."""

import contextlib
import json
import os
import time
from typing import Any, NamedTuple

import rich.console
import rich.table

from impala_mp import errors
from impala_mp.monitoring import display
from impala_mp.storage import files, metrics, workdir

_KEYS = {"time", "bottleneck", "stall", "processes"}
_STALE_SECS = 15.0  # health.json is written anew every 5, if there is room


class Status(NamedTuple):
    """One process, as health.json tells it."""

    role: str
    index: int
    pid: int
    incarnation: int
    state: str
    restarts: int
    heartbeat_age_secs: float
    reason: str  # of the last restart


class HealthReport(NamedTuple):
    """What `impala-status` shows."""

    table: rich.console.Group
    running: bool
    healthy: bool


def write(folder: str, health: dict[str, Any]) -> None:
    """Replaces health.json in `folder`.

    Raises:
      OSError: the disk is full; the file's time says that the supervisor lives.
    """
    path = os.path.join(folder, "health.json")
    try:
        files.write_atomically(path, json.dumps(health, indent=1) + "\n", durable=False)
    except OSError:
        with contextlib.suppress(OSError):
            os.utime(path)  # takes no room
        raise


def read(path: str) -> HealthReport:
    """The state of the run in `path`.

    Raises:
      BadInput: no run has been there, or not one of this version.
    """
    health = _load(path)
    record = metrics.last(path)
    state = health["processes"][0]["state"]
    running = state == "running" and workdir.is_live(path)
    sentence, healthy = _judge_live(path, health) if running else _judge_ended(state)
    parts = [*_parts(health, record), *filter(None, [sentence])]
    return HealthReport(rich.console.Group(*parts), running, healthy)


def _judge_live(path: str, health: dict[str, Any]) -> tuple[str, bool]:
    """What is to be said of the supervisor, and whether all is well."""
    now = time.time()
    age = now - health["time"]
    touched = now - os.path.getmtime(os.path.join(path, "health.json"))
    if min(age, touched) > _STALE_SECS:
        return f"The supervisor lives, and has been silent for {touched:.0f} s.", False
    sick = [p for p in health["processes"] if p["state"] in ("hung", "lost")]
    healthy = not sick and not health["stall"]
    if age > _STALE_SECS:
        return f"The run goes on. This is {age:.0f} s old: is the disk full?", healthy
    return "", healthy


def _judge_ended(state: str) -> tuple[str, bool]:
    if state == "running":
        return "The supervisor was killed: it is gone.", False
    return "", state in ("finished", "stopped")


def _load(path: str) -> dict[str, Any]:
    """health.json, with every key that is used here."""
    try:
        with open(os.path.join(path, "health.json")) as file:
            health = json.load(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.BadInput(
            f"{path} has no health.json: name the --workdir of a run."
        ) from error
    except ValueError as error:
        raise errors.BadInput(
            f"health.json in {path} is half-written or damaged ({error}): a live run"
            " writes it anew every few seconds."
        ) from error
    if not _is_whole(health):
        raise errors.BadInput(
            f"health.json in {path} was written by another version of impala-train:"
            " look at it with that one, or go on with the run first."
        )
    return health


def _is_whole(health: Any) -> bool:
    if not (isinstance(health, dict) and health.keys() >= _KEYS):
        return False
    processes = health["processes"]
    return bool(processes) and all(
        isinstance(each, dict) and each.keys() >= {*Status._fields}
        for each in processes
    )


def _parts(health: dict[str, Any], record: dict[str, float]) -> list[Any]:
    table = rich.table.Table(box=None, pad_edge=False)
    for column in ("role", "pid", "incarnation", "state", "heartbeat", "restarts", ""):
        table.add_column(column)
    for each in health["processes"]:
        table.add_row(
            f"{each['role']} {each['index']}",
            str(each["pid"] or "–"),
            str(each["incarnation"]),
            each["state"],
            f"{each['heartbeat_age_secs']:.1f} s",
            str(each["restarts"]),
            each["reason"],
        )
    parts: list[Any] = [table]
    for label, text in display.rows(record) if record else []:
        parts.append(f"{label}: {text}")
    parts += health.get("live", [])
    return parts + [text for text in (health["bottleneck"], health["stall"]) if text]
