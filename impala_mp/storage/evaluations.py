"""Every evaluation of a run, as a line of evaluations.jsonl."""

import json
import os
from typing import Any

from impala_mp.storage import files

NAME = "evaluations.jsonl"
RANDOM, GREEDY, SAMPLED = "random", "greedy", "sampled"  # policies
PROGRESS, BEST, FINAL = "progress", "best", "final"  # purposes
_NUMBERS = ("agent_steps", "updates", "time_secs", "mean", "low", "high", "episodes")


def append(folder: str, line: dict[str, Any]) -> None:
    """Appends one evaluation, whole or not at all.

    Raises:
      OSError: it cannot be written.
    """
    files.append(os.path.join(folder, NAME), json.dumps(line) + "\n")


def write_final(folder: str, final: dict[str, Any]) -> None:
    """Replaces evaluation.json.

    Raises:
      OSError: it cannot be written.
    """
    path = os.path.join(folder, "evaluation.json")
    files.write_atomically(path, json.dumps(final, indent=1) + "\n", durable=False)


def read(folder: str) -> list[dict[str, Any]]:
    """Returns the evaluations of a run, oldest first; empty if there are none.

    A line that a power cut has cut off or damaged is no evaluation.

    Raises:
      BadInput: they cannot be read.
    """
    found = files.json_objects(os.path.join(folder, NAME))
    return [each for each in found if _is_whole(each)]


def chosen(found: list[dict[str, Any]]) -> dict[tuple[str, float], dict[str, Any]]:
    """Returns one evaluation for each policy and number of agent steps, oldest first.

    Of several, as at the end of a run, it is the one with most games. Of as many, it is
    not the one that chose a checkpoint, which may have been lucky. The random policy is
    left out.
    """
    kept: dict[tuple[str, float], dict[str, Any]] = {}
    for each in found:
        key = each["policy"], each["agent_steps"]
        if each["policy"] == RANDOM:
            continue
        if key not in kept or _weight(each) >= _weight(kept[key]):
            kept[key] = each
    return kept


def _weight(each: dict[str, Any]) -> tuple[float, bool]:
    return each["episodes"] or 0, each["purpose"] != PROGRESS


def has_interval(each: dict[str, Any]) -> bool:
    """Returns whether an evaluation has a 95 % interval; a single game has none."""
    names = ("mean", "low", "high", "episodes")
    known = all(files.is_number(each.get(name)) for name in names)
    return known and each["episodes"] > 1


def are_apart(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Returns whether the means of two evaluations differ beyond chance."""
    both = has_interval(a) and has_interval(b)
    return both and bool(a["low"] > b["high"] or b["low"] > a["high"])


def _is_whole(each: dict[str, Any]) -> bool:
    whole = all(files.is_number(each.get(name)) for name in _NUMBERS)
    return whole and all(isinstance(each.get(x), str) for x in ("purpose", "policy"))
