"""Checkpoints: atomic, verified, and never a mixture.

`checkpoints/<update>/` holds `state.pt` and `SHA256`. It is written under a temporary
name and renamed, so that it exists whole or not at all. The hash is needed because a
flipped byte loads without an error. With a saved replay a checkpoint may exceed the
free memory, so it is written and read without a copy.
"""

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Container
from typing import Any, BinaryIO

import torch

from impala_mp.storage import files

FORMAT_VERSION = 1
NEWEST, BEST = "newest", "best"  # beside the updates, as names of checkpoints

_UNFINISHED = re.compile(r"\.writing-\d")  # of an update
_STATE, _HASH, _KEPT = "state.pt", "SHA256", "KEEP"
_MAX_HASH_BYTES = 1000
_PIECE_BYTES = 2**25  # hashed or written to the disk between two beats


class Damaged(Exception):
    """A checkpoint that cannot be used; the text is a full sentence."""


def _nothing() -> None:
    pass


class _Stream:
    """File for torch.save that hashes its bytes, writes them to the disk, and beats."""

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
        except OSError as error:  # torch would replace it with a vaguer one
            self._error = error
        self._beat()

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> str:
        """Returns the digest of the written file. Raises OSError if it is not whole."""
        if self._error is not None:
            raise self._error
        self.flush()
        return self._hash.hexdigest()


def save(
    folder: str,
    name: int | str,
    state: dict[str, Any],
    keep: bool = False,
    replace: bool = False,
    beat: Callable[[], None] = _nothing,
) -> str:
    """Writes `state` as a checkpoint; returns its path.

    Args:
      name: its update, or another name, which `prune` leaves alone.
      state: what torch.load(weights_only=True) accepts: tensors, numbers, strings,
        lists, tuples and dicts.
      keep: `prune` never removes it.
      replace: replaces a sound checkpoint of that name; False leaves it unchanged.
      beat: called while it is written.

    Raises:
      OSError: it cannot be written; no part of it is left.
    """
    final = os.path.join(folder, str(name))
    there = _is_sound(final, beat)
    if there and not replace:
        return final
    temporary = os.path.join(folder, f"{writing(name)}{secrets.token_hex(8)}")
    os.makedirs(temporary)
    try:
        whole = {"format_version": FORMAT_VERSION, **state}
        digest = write_state(os.path.join(temporary, _STATE), whole, beat)
        files.write_atomically(os.path.join(temporary, _HASH), digest)
        if keep:
            files.write_atomically(os.path.join(temporary, _KEPT), "")
        files.fsync_folder(temporary)
        if there:
            _exchange(temporary, final, digest)
        else:
            shutil.rmtree(final, ignore_errors=True)  # a damaged one, if any
            os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.fsync_folder(folder)
    return final


def write_state(
    path: str, state: dict[str, Any], beat: Callable[[], None] = _nothing
) -> str:
    """Writes a new file of torch.save to the disk; returns its SHA-256.

    Raises:
      OSError: it cannot be written; a part of it may be left.
    """
    with files.create(path) as file:
        stream: Any = _Stream(file, beat)
        torch.save(state, stream)
        digest: str = stream.finish()
    return digest


def writing(name: int | str) -> str:
    """Returns the start of the name under which a checkpoint is written."""
    return f".writing-{name}-"


def _exchange(temporary: str, final: str, digest: str) -> None:
    """Replaces the state in `final` file by file; `final` is sound throughout."""
    both = b" ".join([*_digests(final), digest.encode()])
    files.write_atomically(os.path.join(final, _HASH), both)
    files.fsync_folder(final)
    for name in (_STATE, _HASH, _KEPT):
        with contextlib.suppress(FileNotFoundError):
            os.replace(os.path.join(temporary, name), os.path.join(final, name))
        files.fsync_folder(final)
    os.rmdir(temporary)


def _digests(path: str) -> list[bytes]:
    """Returns the hash of its state, or both hashes during an exchange."""
    return files.read_bytes(os.path.join(path, _HASH), _MAX_HASH_BYTES).split()


def prune(
    folder: str,
    keep_last: int,
    sound: Container[int] = (),
    beat: Callable[[], None] = _nothing,
) -> None:
    """Removes all but the newest `keep_last` checkpoints and those with `keep`.

    Args:
      keep_last: at least 1; damaged checkpoints do not count.
      sound: updates whose checkpoints are known to be sound, and are not read.
      beat: called while other checkpoints are read.

    A checkpoint that cannot be removed stays, and is reported once. A link is removed
    without what it leads to.
    """
    kept = 0
    for update in reversed(files.updates(folder)):
        path = os.path.join(folder, str(update))
        if kept < keep_last:
            kept += update in sound or _is_sound(path, beat)
        elif not os.path.exists(os.path.join(path, _KEPT)):
            _remove(path)
    for name in os.listdir(folder):
        if _UNFINISHED.match(name):  # left by a killed writer
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _remove(path: str) -> None:
    try:
        if os.path.islink(path):
            os.unlink(path)
        else:
            shutil.rmtree(path)
    except OSError as error:
        _report(f"{path} cannot be removed ({error.strerror or error}). It stays.")


@functools.cache
def _report(sentence: str) -> None:
    """Prints a sentence to the log, once."""
    print(sentence, file=sys.stderr, flush=True)


def load(path: str, beat: Callable[[], None] = _nothing) -> dict[str, Any]:
    """Loads one checkpoint folder to the CPU; tensors are pages of its file.

    Raises:
      Damaged: it is incomplete, altered, or has another format.
    """
    name = os.path.join(path, _STATE)
    try:
        digests, digest = _digests(path), _digest(name, beat)
    except (OSError, files.Damaged) as error:
        raise Damaged(f"checkpoint {path} is incomplete: {error}.") from error
    if digest not in digests:
        raise Damaged(f"checkpoint {path} is damaged: its SHA-256 does not match.")
    state = _unpickle(path, name)
    found = state.pop("format_version", "none")
    if found != FORMAT_VERSION:
        raise Damaged(
            f"checkpoint {path} has format {found}. This version reads format"
            f" {FORMAT_VERSION}."
        )
    return state


def _digest(name: str, beat: Callable[[], None]) -> bytes:
    found = hashlib.sha256()
    with files.open_to_read(name) as file:
        while piece := file.read(_PIECE_BYTES):
            found.update(piece)
            beat()
    return found.hexdigest().encode()


def _unpickle(path: str, name: str) -> dict[str, Any]:
    try:
        state = torch.load(name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # bytes of other writers raise any error in torch
        # The first sentence of torch's text; later ones recommend running its code.
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


def names(folder: str) -> list[str]:
    """Returns what `--checkpoint` may name: newest, best, updates, oldest first.

    A policy that is kept, without the run around it, has only its best.
    """
    updates = files.updates(folder)
    newest = [NEWEST] if updates else []
    best = [BEST] if os.path.isdir(os.path.join(folder, BEST)) else []
    return [*newest, *best, *map(str, updates)]


def load_newest(
    folder: str, report: Callable[[str], None], beat: Callable[[], None] = _nothing
) -> dict[str, Any] | None:
    """Loads the newest sound checkpoint; returns None if there are no checkpoints.

    Args:
      report: called with a sentence on each skipped checkpoint.
      beat: called while checkpoints are read.

    Raises:
      Damaged: there are checkpoints, but none is sound.
    """
    updates: list[int] = []
    reasons: list[str] = []
    # A live run may write another one, and remove those that are being read.
    while (there := files.updates(folder)) != updates:
        updates, reasons = there, []
        for update in reversed(updates):
            try:
                state = load(os.path.join(folder, str(update)), beat)
            except Damaged as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                report(reason)
            if reasons:
                report("Resuming from the previous checkpoint.")
            return state
    if updates:
        raise Damaged(
            f"none of the {len(updates)} checkpoints in {folder} can be read. Newest:"
            f" {reasons[0]} Remove the folder to restart from the beginning."
        )
    return None
