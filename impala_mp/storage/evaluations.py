"""Evaluations of a run, as the lines of evaluations.jsonl."""

import os
from typing import Any

from impala_mp import errors
from impala_mp.storage import files

NAME = "evaluations.jsonl"


def read(folder: str) -> list[dict[str, Any]]:
    """Returns the evaluations of a run, oldest first; empty if there are none.

    A line that a power cut has cut off or damaged is no evaluation.

    Raises:
      BadInput: the file cannot be read.
    """
    path = os.path.join(folder, NAME)
    try:
        lines = files.read_bytes(path).splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, files.Damaged) as error:
        raise errors.BadInput(
            f"{path} cannot be read ({error}). Name another run, or restore the file."
        ) from error
    return [each for each in map(_parsed, lines) if isinstance(each, dict)]


def _parsed(line: bytes) -> Any:
    try:
        return files.from_json(line)
    except ValueError:
        return None
