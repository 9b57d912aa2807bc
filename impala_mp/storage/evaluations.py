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


def _is_whole(each: dict[str, Any]) -> bool:
    whole = all(files.is_number(each.get(name)) for name in _NUMBERS)
    return whole and all(isinstance(each.get(x), str) for x in ("purpose", "policy"))
