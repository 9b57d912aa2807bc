"""Atomic and durable writes; the list of checkpoints. Imports no torch."""

import contextlib
import os

from impala_mp import errors


def write_atomically(path: str, text: str, durable: bool = True) -> None:
    """Writes a file that readers see whole or not at all.

    With `durable` this also holds after a power cut.
    """
    temporary = f"{path}.writing"
    try:
        with open(temporary, "w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(FileNotFoundError):  # the disk had no room for a name
            os.unlink(temporary)
        raise
    os.replace(temporary, path)


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


def write_durably(path: str, data: bytes) -> None:
    """Writes a file that survives a power cut."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


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
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def newest_update(folder: str) -> int:
    """Returns the update of the newest checkpoint, sound or not; -1 without any."""
    return max(updates(folder), default=-1)
