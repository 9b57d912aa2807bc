"""Writes and reads health.json, and judges the run by it."""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from impala_mp import errors
from impala_mp.monitoring import host_states
from impala_mp.storage import files, workdir

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


class Verdict(NamedTuple):
    """State of a run, and whether it is as it should be."""

    state: str  # running, stalled, sick, silent, killed, finished, stopped or failed
    is_running: bool
    is_healthy: bool
    sentence: str = ""


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


def judge(path: str, health: dict[str, Any]) -> Verdict:
    """Returns the state of the run in `path`, from its health.json and its lock."""
    state = str(health["processes"][0]["state"])
    is_live = workdir.is_live(path)
    if state == "running" and is_live:
        return _judge_live(path, health)
    if state == "running":
        return Verdict("killed", False, False, "The supervisor was killed.")
    if is_live and state == "finished":
        text = "The final evaluation is in progress."
        return Verdict(state, False, True, text)
    return Verdict(state, False, state in ("finished", "stopped"))


def _judge_live(path: str, health: dict[str, Any]) -> Verdict:
    now = time.time()
    age = now - health["time"]
    touched = now - os.path.getmtime(os.path.join(path, "health.json"))
    if min(age, touched) > _STALE_SECS:
        text = f"The supervisor is alive but silent for {touched:.0f} s."
        return Verdict("silent", True, False, text)
    is_sick = any(each["state"] in _SICK for each in health["processes"])
    state = "stalled" if health["stall"] else "sick" if is_sick else "running"
    text = ""
    if age > _STALE_SECS:
        text = f"The run continues. This is {age:.0f} s old: is the disk full?"
    return Verdict(state, True, state == "running", text)


def load(path: str) -> dict[str, Any]:
    """Loads health.json and checks its values.

    Raises:
      BadInput: there is no run, or it is from another version.
    """
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
        and host_states.is_whole(health.get("hosts", []))
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
