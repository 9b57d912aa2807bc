"""Checkpoints: atomic, verified, and never a mixture.

`checkpoints/<update>/` holds `state.pt` and `SHA256`. It is written beside its place
and renamed, so that it is there whole or not at all. The hash is needed because a
flipped byte loads without complaint.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

FORMAT_VERSION = 1

_STATE, _HASH, _KEPT = "state.pt", "SHA256", "KEEP"


class Damaged(Exception):
    """A checkpoint that cannot be used, in a sentence."""


def _fsync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: str, data: bytes) -> None:
    """A file that is there after a power cut."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _updates(folder: str) -> list[int]:
    """The checkpoints there are, oldest first."""
    if not os.path.isdir(folder):
        return []
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def save(folder: str, update: int, state: dict[str, Any], keep: bool = False) -> str:
    """Writes `state` as the checkpoint of `update`, and returns its path.

    A sound checkpoint of that update is left as it is.

    Args:
      state: what torch.load(weights_only=True) accepts: tensors, numbers, strings,
        lists, tuples and dicts.
      keep: never to be removed by `prune`.
    """
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **state}, buffer)
    data = buffer.getvalue()
    final = os.path.join(folder, str(update))
    if _is_sound(final):
        return final
    temporary = os.path.join(folder, f".writing-{update}")
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        write_durably(os.path.join(temporary, _STATE), data)
        digest = hashlib.sha256(data).hexdigest()
        write_durably(os.path.join(temporary, _HASH), digest.encode())
        if keep:
            write_durably(os.path.join(temporary, _KEPT), b"")
        _fsync_folder(temporary)
        shutil.rmtree(final, ignore_errors=True)  # there, but damaged
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync_folder(folder)
    return final


def prune(folder: str, keep_last: int) -> None:
    """Removes all but the newest `keep_last` and those saved with `keep`."""
    for update in _updates(folder)[:-keep_last]:
        path = os.path.join(folder, str(update))
        if not os.path.exists(os.path.join(path, _KEPT)):
            shutil.rmtree(path)
    for name in os.listdir(folder):
        if name.startswith(".writing-"):  # of a writer that was killed
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def load(path: str) -> dict[str, Any]:
    """The state in one checkpoint folder, on the CPU.

    Raises:
      Damaged: it is incomplete, altered, or of another format.
    """
    try:
        with open(os.path.join(path, _STATE), "rb") as file:
            data = file.read()
        with open(os.path.join(path, _HASH), "rb") as file:
            digest = file.read().strip()
    except OSError as error:
        raise Damaged(f"checkpoint {path} is incomplete: {error}.") from error
    if hashlib.sha256(data).hexdigest().encode() != digest:
        raise Damaged(f"checkpoint {path} is damaged: its SHA-256 does not match.")
    state = _unpickle(path, data)
    found = state.pop("format_version", "none")
    if found != FORMAT_VERSION:
        raise Damaged(
            f"checkpoint {path} has format {found}; this version reads"
            f" {FORMAT_VERSION}."
        )
    return state


def _unpickle(path: str, data: bytes) -> dict[str, Any]:
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever another writer's bytes set off in torch
        # Of what torch says the first sentence; others recommend to run the code in it.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise Damaged(f"checkpoint {path} cannot be unpickled ({reason}).") from error
    if not isinstance(state, dict):
        raise Damaged(f"checkpoint {path} is a {type(state).__name__}, not a dict.")
    return state


def _is_sound(path: str) -> bool:
    try:
        load(path)
    except Damaged:
        return False
    return True


def exists(folder: str) -> bool:
    """Whether there is any checkpoint, sound or not."""
    return bool(_updates(folder))


def load_newest(folder: str, report: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest sound checkpoint, or None if there is none at all.

    Args:
      report: is told, in sentences, of each one that had to be passed over.

    Raises:
      Damaged: there are checkpoints, and none is sound.
    """
    updates, reasons = _updates(folder), []
    for update in reversed(updates):
        try:
            state = load(os.path.join(folder, str(update)))
        except Damaged as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            report(reason)
        if reasons:
            report("Going on from the one before.")
        return state
    if updates:
        raise Damaged(
            f"none of the {len(updates)} checkpoints in {folder} can be read: remove"
            f" the folder to start anew. Of the newest: {reasons[0]}"
        )
    return None
