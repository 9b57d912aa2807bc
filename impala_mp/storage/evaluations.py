"""Every evaluation of a run, as a line of evaluations.jsonl."""

import json
import os
from typing import Any

from impala_mp import errors
from impala_mp.storage import files

NAME = "evaluations.jsonl"
RANDOM, GREEDY, SAMPLED = "random", "greedy", "sampled"  # policies
PROGRESS, BEST, FINAL = "progress", "best", "final"  # purposes
_MAX_FILE_BYTES = 2**32
_MAX_LINE_BYTES = 2**24
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
    path = os.path.join(folder, NAME)
    try:
        file = files.open_to_read(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise errors.BadInput(
            f"{path} cannot be read ({error}). Name another run, or restore the file."
        ) from error
    with file:
        if os.fstat(file.fileno()).st_size > _MAX_FILE_BYTES:
            raise errors.BadInput(
                f"{path} has more than {_MAX_FILE_BYTES:,} bytes. Restore the file."
            )
        found = []
        while line := file.readline(_MAX_LINE_BYTES):
            each = _parsed(line)
            if each is not None:
                found.append(each)
        return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        each = files.from_json(line)
    except ValueError:
        return None
    if not isinstance(each, dict):
        return None
    whole = all(files.is_number(each.get(name)) for name in _NUMBERS)
    named = all(isinstance(each.get(name), str) for name in ("purpose", "policy"))
    return each if whole and named else None
