"""Reads the folder of a run for its report: a live, ended, old or damaged one."""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from impala_mp import errors
from impala_mp.config import base, fields
from impala_mp.monitoring import evidence, findings, health
from impala_mp.storage import evaluations, files, machine, metrics, workdir

_MAX_FILM_BYTES = 12 * 2**20  # more makes the file too large for a mail
_MAX_LINEAGE = 20  # runs before this one
_ACTIONS, _RETURN = "policy/actions", "evaluation/return_"  # names in a record
_FOUND = ("config.json", "metrics.jsonl", "health.json")  # of which a run has one

_Result = TypeVar("_Result")


class Health(NamedTuple):
    """State of the processes, from health.json."""

    state: str  # of the run; "" if it is unknown
    is_well: bool
    time: float  # seconds since 1970; 0 if it is unknown
    bottleneck: str
    processes: list[dict[str, Any]]


class _Records(NamedTuple):
    """Parts of a run's records that a report shows."""

    thinned: list[evidence.Record]
    resumes: list[float]  # agent steps
    evaluations: list[dict[str, Any]]


class Run(NamedTuple):
    """Content of a run's folder; a part that is missing or damaged is empty."""

    folder: str
    settings: dict[str, Any]  # the config by dotted names
    changed: dict[str, tuple[Any, Any]]  # fields that differ: default, value
    records: list[evidence.Record]  # thinned
    resumes: list[float]  # agent steps
    evaluations: list[dict[str, Any]]
    final: dict[str, dict[str, Any]]  # by policy
    has_best: bool  # a best checkpoint
    health: Health
    journal: list[dict[str, Any]]
    lineage: list[dict[str, Any]]  # the nearest ancestor first
    film: bytes
    machine: dict[str, str]  # versions and machine of the newest start
    starts: int
    notes: list[str]  # sentences on what could not be read
    findings: list[evidence.Finding]


def read(folder: str) -> Run:
    """Reads all that a report shows of the run in `folder`.

    Raises:
      BadInput: there is no run.
    """
    workdir.check_name(folder)
    if not any(os.path.lexists(os.path.join(folder, name)) for name in _FOUND):
        raise errors.BadInput(
            f"{folder} has no run: {', '.join(_FOUND[:-1])} and {_FOUND[-1]} are"
            " missing. Name the --workdir of a run."
        )
    notes = list[str]()

    def attempt(function: Callable[[str], _Result], default: _Result) -> _Result:
        try:
            return function(folder)
        except errors.BadInput as error:
            if str(error) not in notes:  # health reads the records, too
                notes.append(str(error))
            return default

    settings, changed = attempt(_config, ({}, {}))
    found = attempt(_records, _Records([], [], []))
    played = attempt(evaluations.read, [])
    final = attempt(_final, {})
    known = [*played, *({**each, "purpose": "final"} for each in final.values())]
    return Run(
        folder,
        settings,
        changed,
        found.thinned,
        found.resumes,
        played or found.evaluations,
        final,
        os.path.isdir(os.path.join(workdir.Workdir(folder).checkpoints, "best")),
        attempt(_health, Health("", False, 0.0, "", [])),
        attempt(_journal, []),
        attempt(_lineage, []),
        attempt(_film, b""),
        attempt(_machine, {}),
        _starts(folder),
        notes,
        findings.find(found.thinned, settings, known),
    )


def _config(folder: str) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    config = workdir.read_config(folder)
    changed = fields.differences(base.get_base_config(), config)
    return fields.flatten(config), changed


def _records(folder: str) -> _Records:
    """Reads the numbers of all records, and the lists of action counts."""
    thinned, found = evidence.thinned(), _Records([], [], [])
    steps, run = 0.0, math.inf  # of the record before
    for every in metrics.records(folder):
        record = {k: v for k, v in every.items() if files.is_number(v) or k == _ACTIONS}
        if record.get("health/run", -math.inf) > run:
            found.resumes.append(steps)
        steps, run = record["agent_steps"], record.get("health/run", math.inf)
        if f"{_RETURN}mean" in record:
            found.evaluations.append(_recorded(record))
        thinned.add(record)
    return found._replace(thinned=thinned.records)


def _recorded(record: evidence.Record) -> dict[str, Any]:
    """Returns the evaluation in a record of a run without evaluations.jsonl."""
    return {
        "purpose": evaluations.PROGRESS,
        "policy": "",  # unknown
        "agent_steps": record["agent_steps"],
        **{
            name: record[f"{_RETURN}{name}"]
            for name in ("mean", "std", "min", "max", "low", "high")
            if f"{_RETURN}{name}" in record
        },
        "episodes": record.get("evaluation/episodes"),
    }


def _json(folder: str, name: str, default: Any) -> Any:
    """Reads a JSON file; a missing one has the value `default`.

    Raises:
      BadInput: it is damaged, or not of the type of `default`.
    """
    path = os.path.join(folder, name)
    try:
        found = files.read_json(path)
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise errors.BadInput(f"{path} cannot be read ({error}).") from error
    if not isinstance(found, type(default)):
        raise errors.BadInput(f"{path} is of another version, or was edited.")
    return found


def _machine(folder: str) -> dict[str, str]:
    """Returns the versions and the machine of the run; {} of an older run."""
    return {k: str(v) for k, v in _json(folder, machine.NAME, {}).items()}


def _final(folder: str) -> dict[str, dict[str, Any]]:
    """Returns the final evaluations by policy."""
    return {
        policy: each
        for policy, each in _json(folder, "evaluation.json", {}).items()
        if isinstance(each, dict) and files.is_number(each.get("mean"))
    }


def _health(folder: str) -> Health:
    found = health.load(folder)
    verdict = health.judge(folder, found)
    return Health(
        verdict.state,
        verdict.is_healthy,
        found["time"],
        found["bottleneck"],
        found["processes"],
    )


def _journal(folder: str) -> list[dict[str, Any]]:
    """Returns the changes of live and other values, oldest first."""
    return files.json_objects(os.path.join(folder, "changes.jsonl"))


def _lineage(folder: str) -> list[dict[str, Any]]:
    found, each = [], _json(folder, "lineage.json", {})
    while isinstance(each, dict) and each and len(found) < _MAX_LINEAGE:
        found.append(each)
        each = each.get("before")
    return found


def _film(folder: str) -> bytes:
    path = os.path.join(folder, "film.gif")
    try:
        data = files.read_bytes(path, _MAX_FILM_BYTES)
    except FileNotFoundError:
        return b""
    except (OSError, files.Damaged) as error:
        raise errors.BadInput(f"{path} is not shown ({error}).") from error
    if not data.startswith((b"GIF87a", b"GIF89a")):
        raise errors.BadInput(f"{path} is not shown (it is no GIF).")
    return data


def _starts(folder: str) -> int:
    """Returns how often a run was started in the folder, which the lock counts."""
    try:
        return os.stat(os.path.join(folder, "lock")).st_size
    except OSError:
        return 0
