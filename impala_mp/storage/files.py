"""Reads and writes the files of a run; lists checkpoints. Imports no torch.

A stranger or a bad copy may leave anything in a folder. A writer never follows a link,
and makes its temporary file under a name that cannot be foreseen. A reader never waits,
and never reads more than a limit.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from impala_mp import errors

MAX_TEXT_BYTES = 2**24  # of a JSON file, or of a line
_MAX_LINES_BYTES = 2**32  # of a file of JSON lines
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.writing")  # name of an unfinished file
_STALE_SECS = 60.0  # age at which an unfinished file has no writer any more
_SAFE = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Damaged(ValueError):
    """Content of a file that cannot be used; the text completes `it is damaged (...)`.

    A UTF-8 or JSON error of Python is a ValueError, too.
    """


def open_to_read(path: str, links: bool = True) -> BinaryIO:
    """Opens a regular file without waiting; anything else in its place is refused.

    Args:
      links: False: a symbolic link is refused.

    Raises:
      OSError: it is no regular file, or cannot be read.
    """
    flags = os.O_RDONLY | (0 if links else os.O_NOFOLLOW)
    return _regular(os.open(path, flags | _SAFE), path, "rb")


def open_to_append(path: str) -> BinaryIO:
    """Opens a regular file, unbuffered, for reading and for writing at its end.

    Makes the file if it is missing.

    Raises:
      OSError: it is a link or no regular file, or cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return _regular(os.open(path, flags | _SAFE, 0o666), path, "a+b", buffering=0)


def _regular(fd: int, path: str, mode: str, buffering: int = -1) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "It is no regular file", path)
        os.set_blocking(fd, True)
        return open(fd, mode, buffering)  # type: ignore[return-value]
    except BaseException:
        os.close(fd)
        raise


def append(path: str, text: str) -> None:
    """Appends all of `text`; raises OSError, and appends nothing, if it cannot."""
    with open_to_append(path) as file:
        append_whole(file, text.encode(errors="backslashreplace"))


def append_whole(file: BinaryIO, data: bytes) -> None:
    """Appends all of `data` to a file of `open_to_append`.

    Raises:
      OSError: it cannot be written, for example because the disk is full; then nothing
        is appended.
    """
    fd = file.fileno()
    size = os.fstat(fd).st_size
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    except OSError:
        os.ftruncate(fd, size)
        raise


@contextlib.contextmanager
def opened(path: str, max_bytes: int) -> Iterator[BinaryIO | None]:
    """Opens a file that a run appends to; yields None if it is not there.

    Raises:
      BadInput: it cannot be read, or is larger than `max_bytes`.
    """
    try:
        file = open_to_read(path)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise errors.BadInput(
            f"{path} cannot be read ({error}). Name another run, or restore the file."
        ) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise errors.BadInput(
                f"{path} has {size:,} bytes. At most {max_bytes:,} can be read. Restore"
                " the file."
            )
        yield file


def json_objects(path: str) -> list[dict[str, Any]]:
    """Returns the objects of a file with one a line, oldest first.

    Returns [] if it is not there. A line that a power cut has cut off or damaged is
    left out.

    Raises:
      BadInput: it cannot be read, or is too large.
    """
    found = []
    with opened(path, _MAX_LINES_BYTES) as file:
        while file and (line := file.readline(MAX_TEXT_BYTES)):
            with contextlib.suppress(ValueError):
                found.append(from_json(line))
    return [each for each in found if isinstance(each, dict)]


def read_bytes(path: str, limit: int = MAX_TEXT_BYTES, links: bool = True) -> bytes:
    """Reads a whole file.

    Raises:
      OSError: as in `open_to_read`.
      Damaged: it is larger than `limit` bytes.
    """
    with open_to_read(path, links) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Damaged(f"it is larger than {limit:,} bytes")
    return data


def read_json(path: str, limit: int = MAX_TEXT_BYTES, links: bool = True) -> Any:
    """Reads a JSON file.

    Raises:
      OSError: as in `open_to_read`.
      ValueError: it is no JSON, or too large, or nested too deeply to be read.
    """
    return from_json(read_bytes(path, limit, links))


def from_json(text: bytes) -> Any:
    """Parses JSON. Raises ValueError, also for a text that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Damaged("it is nested too deeply") from error


def is_number(value: Any) -> bool:
    """Returns whether a value from JSON is a number that a float can hold."""
    whole = isinstance(value, (int, float)) and not isinstance(value, bool)
    return whole and -1e300 < value < 1e300


def visible(text: str) -> str:
    """Escapes what a terminal would interpret or cannot show, newlines excepted."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def write_atomically(path: str, content: str | bytes, durable: bool = True) -> None:
    """Writes a file that readers see whole or not at all; a link is replaced.

    With `durable` this also holds after a power cut.

    Raises:
      OSError: it cannot be written; nothing is left of it.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as temporary, create(temporary) as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yields a name for the new content of `path`, which then takes its place.

    Raises:
      OSError: the new file cannot take the place; it is removed.
    """
    temporary = temporary_name(os.path.dirname(path))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the disk had no room for a name
            os.unlink(temporary)
        raise


def temporary_name(folder: str) -> str:
    """Returns a path that no other process can foresee."""
    return os.path.join(folder, f".{secrets.token_hex(8)}.writing")


def create(path: str) -> BinaryIO:
    """Opens a file that was not there, for writing; the umask sets its mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return open(os.open(path, flags, 0o666), "wb")


def remove_stale(folder: str) -> None:
    """Removes unfinished files of writers that were killed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _TEMPORARY.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):  # a folder, or another user's
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age > _STALE_SECS:
                    os.unlink(entry.path)


def check_place(flag: str, path: str) -> None:
    """Raises BadInput unless the file named by a flag can be written later."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise errors.BadInput(
            f"--{flag}={path} is in the folder {folder}, which does not exist. Make it,"
            " or name another file."
        )
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise errors.BadInput(f"--{flag}={path} cannot be written. Name another file.")


def fsync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def updates(folder: str) -> list[int]:
    """Returns the updates of all checkpoints, oldest first."""
    if not os.path.isdir(folder):
        return []
    return sorted(int(name) for name in os.listdir(folder) if _is_update(name))


def _is_update(name: str) -> bool:
    """Returns whether a checkpoint has that name: `7`, but not `007` or `²`."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name


def newest_update(folder: str) -> int:
    """Returns the update of the newest checkpoint, sound or not; -1 without any."""
    return max(updates(folder), default=-1)
