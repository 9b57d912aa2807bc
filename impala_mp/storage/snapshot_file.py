"""Files league/VERSION.pt of a run: snapshots of its policy, written once."""

import contextlib
import os
from typing import Any

import torch

from impala_mp.storage import checkpoint, files

FOLDER = "league"
_SUFFIX = ".pt"
_FORMAT_VERSION = 1


class Damaged(Exception):
    """A snapshot that cannot be used; the text is a full sentence."""


def path_of(folder: str, version: int) -> str:
    return os.path.join(folder, f"{version}{_SUFFIX}")


def versions(folder: str) -> list[int]:
    """Returns the versions of the snapshots in a folder, ascending."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def write(folder: str, version: int, state: dict[str, Any]) -> None:
    """Writes a snapshot whole, or not at all.

    Args:
      state: tensors, numbers, strings, lists and dicts.

    Raises:
      FileExistsError: there is one of that version, which never changes.
      OSError: it cannot be written.
    """
    path = path_of(folder, version)
    if os.path.lexists(path):
        raise FileExistsError(f"{path} is a snapshot already")
    os.makedirs(folder, exist_ok=True)
    with files.replacing(path) as temporary:
        whole = {"format_version": _FORMAT_VERSION, **state}
        checkpoint.write_state(temporary, whole)
    with contextlib.suppress(OSError):  # it is written; a power cut may lose it
        files.fsync_folder(folder)


def read(folder: str, version: int) -> dict[str, Any]:
    """Reads a snapshot.

    Raises:
      Damaged: it is missing, incomplete, or of another format.
    """
    path = path_of(folder, version)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of other writers raise any error in torch
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise Damaged(f"snapshot {path} cannot be read ({reason}).") from error
    if not isinstance(state, dict) or state.get("format_version") != _FORMAT_VERSION:
        raise Damaged(
            f"snapshot {path} is of another format. This version reads format"
            f" {_FORMAT_VERSION}."
        )
    return state
