"""A run's health.json and newest metrics, as a table and a verdict."""

import json
import os
import time
from typing import Any, NamedTuple

import rich.console
import rich.table

from impala_mp import display, errors, metrics

_KEYS = {"time", "bottleneck", "stall", "processes"}
_PROCESS_KEYS = {
    "role",
    "index",
    "pid",
    "incarnation",
    "state",
    "restarts",
    "heartbeat_age_secs",
    "reason",
}
_STALE_SECS = 15.0  # without a new health.json there is no supervisor


class HealthReport(NamedTuple):
    """What `impala-status` shows."""

    table: rich.console.Group
    running: bool
    healthy: bool


def read(path: str) -> HealthReport:
    """The state of the run in `path`.

    Raises:
      BadInput: no run has been there, or not one of this version.
    """
    health = _load(path)
    records = metrics.read(path)
    age = time.time() - health["time"]
    processes = health["processes"]
    supervisor = processes[0]["state"]
    running = supervisor == "running" and age < _STALE_SECS
    ended_well = supervisor in ("finished", "stopped")
    sick = [p for p in processes if running and p["state"] in ("hung", "lost")]
    return HealthReport(
        rich.console.Group(*_parts(health, records, age, running or ended_well)),
        running,
        (running and not sick) or ended_well,
    )


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
            " writes it anew every config.logging.interval_secs."
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
        isinstance(each, dict) and each.keys() >= _PROCESS_KEYS for each in processes
    )


def _parts(
    health: dict[str, Any], records: list[dict[str, float]], age: float, known: bool
) -> list[Any]:
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
    for label, text in display.rows(records[-1]) if records else []:
        parts.append(f"{label}: {text}")
    parts += health.get("live", [])
    parts += [text for text in (health["bottleneck"], health["stall"]) if text]
    if not known:
        parts.append(f"The supervisor has written nothing for {age:.0f} s: it is gone.")
    return parts
