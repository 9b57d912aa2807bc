"""Checkpoints: atomic, verified, and never a mixture.

`checkpoints/<update>/` holds `state.pt` and `SHA256`. It is written beside its place
and renamed, so that it is there whole or not at all. The hash is needed because a
flipped byte loads without complaint. A saved replay may make it larger than what is
left of the memory: it is written and read without a copy.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Container
from typing import Any, BinaryIO

import torch

from impala_mp.storage import files

FORMAT_VERSION = 1

_STATE, _HASH, _KEPT = "state.pt", "SHA256", "KEEP"
_PIECE_BYTES = 2**25  # that are hashed, or brought to the disk, between two beats


class Damaged(Exception):
    """A checkpoint that cannot be used, in a sentence."""


def _nothing() -> None:
    pass


class _Stream:
    """Takes what torch.save writes: hashes it, brings it to the disk, and beats."""

    def __init__(self, file: BinaryIO, beat: Callable[[], None]) -> None:
        self._file, self._beat = file, beat
        self._hash = hashlib.sha256()
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            if self._error is None:
                self._put(view[start : start + _PIECE_BYTES])
        return len(view)

    def _put(self, piece: memoryview) -> None:
        try:
            self._hash.update(piece)
            self._file.write(piece)
            if len(piece) == _PIECE_BYTES:
                self.flush()
        except OSError as error:  # torch would make another of it, in other words
            self._error = error
        self._beat()

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> str:
        """The digest of what is on the disk. Raises OSError if not all of it is."""
        if self._error is not None:
            raise self._error
        self.flush()
        return self._hash.hexdigest()


def save(
    folder: str,
    update: int,
    state: dict[str, Any],
    keep: bool = False,
    replace: bool = False,
    beat: Callable[[], None] = _nothing,
) -> str:
    """Writes `state` as the checkpoint of `update`, and returns its path.

    Args:
      state: what torch.load(weights_only=True) accepts: tensors, numbers, strings,
        lists, tuples and dicts.
      keep: never to be removed by `prune`.
      replace: else a sound checkpoint of that update is left as it is.
      beat: called while it is written.
    """
    final = os.path.join(folder, str(update))
    there = _is_sound(final, beat)
    if there and not replace:
        return final
    temporary = os.path.join(folder, f".writing-{update}")
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        with open(os.path.join(temporary, _STATE), "wb") as file:
            stream: Any = _Stream(file, beat)
            torch.save({"format_version": FORMAT_VERSION, **state}, stream)
            digest = stream.finish()
        files.write_durably(os.path.join(temporary, _HASH), digest.encode())
        if keep:
            files.write_durably(os.path.join(temporary, _KEPT), b"")
        files.fsync_folder(temporary)
        if there:
            _exchange(temporary, final, digest)
        else:
            shutil.rmtree(final, ignore_errors=True)  # there, but damaged
            os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.fsync_folder(folder)
    return final


def _exchange(temporary: str, final: str, digest: str) -> None:
    """Moves the new state to its place, file by file: `final` is sound throughout."""
    both = b" ".join([*_digests(final), digest.encode()])
    files.write_durably(os.path.join(final, f".{_HASH}"), both)
    os.replace(os.path.join(final, f".{_HASH}"), os.path.join(final, _HASH))
    files.fsync_folder(final)
    for name in (_STATE, _HASH, _KEPT):
        with contextlib.suppress(FileNotFoundError):
            os.replace(os.path.join(temporary, name), os.path.join(final, name))
        files.fsync_folder(final)
    os.rmdir(temporary)


def _digests(path: str) -> list[bytes]:
    """The hash of its state; of two while one replaces the other."""
    with open(os.path.join(path, _HASH), "rb") as file:
        return file.read().split()


def prune(
    folder: str,
    keep_last: int,
    sound: Container[int] = (),
    beat: Callable[[], None] = _nothing,
) -> None:
    """Removes what is older than the newest `keep_last`, unless saved with `keep`.

    Args:
      keep_last: damaged ones do not count; at least 1.
      sound: updates whose checkpoints need not be read to know that.
      beat: called while others are read.
    """
    kept = 0
    for update in reversed(files.updates(folder)):
        path = os.path.join(folder, str(update))
        if kept < keep_last:
            kept += update in sound or _is_sound(path, beat)
        elif not os.path.exists(os.path.join(path, _KEPT)):
            shutil.rmtree(path)
    for name in os.listdir(folder):
        if name.startswith(".writing-"):  # of a writer that was killed
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def load(path: str, beat: Callable[[], None] = _nothing) -> dict[str, Any]:
    """The state in one checkpoint folder, on the CPU: tensors are pages of its file.

    Raises:
      Damaged: it is incomplete, altered, or of another format.
    """
    name = os.path.join(path, _STATE)
    try:
        digests, digest = _digests(path), _digest(name, beat)
    except OSError as error:
        raise Damaged(f"checkpoint {path} is incomplete: {error}.") from error
    if digest not in digests:
        raise Damaged(f"checkpoint {path} is damaged: its SHA-256 does not match.")
    state = _unpickle(path, name)
    found = state.pop("format_version", "none")
    if found != FORMAT_VERSION:
        raise Damaged(
            f"checkpoint {path} has format {found}; this version reads"
            f" {FORMAT_VERSION}."
        )
    return state


def _digest(name: str, beat: Callable[[], None]) -> bytes:
    found = hashlib.sha256()
    with open(name, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            found.update(piece)
            beat()
    return found.hexdigest().encode()


def _unpickle(path: str, name: str) -> dict[str, Any]:
    try:
        state = torch.load(name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever another writer's bytes set off in torch
        # Of what torch says the first sentence; others recommend to run the code in it.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise Damaged(f"checkpoint {path} cannot be unpickled ({reason}).") from error
    if not isinstance(state, dict):
        raise Damaged(f"checkpoint {path} is a {type(state).__name__}, not a dict.")
    return state


def _is_sound(path: str, beat: Callable[[], None]) -> bool:
    try:
        load(path, beat)
    except Damaged:
        return False
    return True


def load_newest(
    folder: str, report: Callable[[str], None], beat: Callable[[], None] = _nothing
) -> dict[str, Any] | None:
    """The newest sound checkpoint, or None if there is none at all.

    Args:
      report: is told, in sentences, of each one that had to be passed over.
      beat: called while it is read.

    Raises:
      Damaged: there are checkpoints, and none is sound.
    """
    updates, reasons = files.updates(folder), []
    for update in reversed(updates):
        try:
            state = load(os.path.join(folder, str(update)), beat)
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
