"""Atomic and durable writes; the list of checkpoints. Imports no torch."""

import contextlib
import os

from impala_mp import errors


def write_atomically(path: str, text: str, durable: bool = True) -> None:
    """Whole or not at all for whoever reads it; `durable`: also after a power cut."""
    temporary = f"{path}.writing"
    try:
        with open(temporary, "w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(FileNotFoundError):  # there was no room for a name
            os.unlink(temporary)
        raise
    os.replace(temporary, path)


def check_place(flag: str, path: str) -> None:
    """Raises BadInput unless the file that a flag names can be written later."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise errors.BadInput(
            f"--{flag}={path}: there is no folder {folder}: make it, or name another."
        )
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise errors.BadInput(f"--{flag}={path} cannot be written: name another file.")


def write_durably(path: str, data: bytes) -> None:
    """A file that is there after a power cut."""
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
    """The checkpoints there are, oldest first."""
    if not os.path.isdir(folder):
        return []
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def newest_update(folder: str) -> int:
    """The number of the newest checkpoint, sound or not; -1 if there is none."""
    return max(updates(folder), default=-1)
