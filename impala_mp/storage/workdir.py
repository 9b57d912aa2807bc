"""Folder of a run, with one live owner and one config."""

import contextlib
import fcntl
import os
import shutil

from ml_collections import config_dict

from impala_mp import errors
from impala_mp.config import fields
from impala_mp.storage import files


class Workdir:
    """Paths in a run's folder, and its lock while this object is open.

    The lock is the kernel's, on an open file, so a killed run cannot leave it behind.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.checkpoints = os.path.join(self.path, "checkpoints")
        self.logs = os.path.join(self.path, "logs")
        self.run = 0  # number of earlier runs in this folder
        self._config = os.path.join(self.path, "config.json")
        self._lock = -1
        self._made: list[str] = []  # folders made by `open`, the innermost first

    def stored(self) -> config_dict.ConfigDict | None:
        """Returns the config of the run in this folder, or None without a run."""
        return read_config(self.path) if os.path.exists(self._config) else None

    def check(self, new: config_dict.ConfigDict) -> list[str]:
        """Compares `new` with the config in the folder; returns a line per change.

        Raises:
          BadInput: the folder belongs to another experiment, or cannot be made.
        """
        there = _nearest(self.path)
        if not os.path.isdir(there):
            raise errors.BadInput(
                f"--workdir={self.path} cannot be made, because {there} is a file. Name"
                " a folder."
            )
        if not os.path.exists(self._config):
            self._refuse_strangers()
            return []
        changed = fields.differences(read_config(self.path), new)
        foreign = {k: v for k, v in changed.items() if not fields.is_operational(k)}
        if foreign:
            lines = "; ".join(
                f"{k} is {a!r} there, {b!r} here" for k, (a, b) in foreign.items()
            )
            raise errors.BadInput(
                f"--workdir={self.path} belongs to another config ({lines}). Choose"
                " another folder, or set the same values."
            )
        return [f"{k} changes from {a!r} to {b!r}." for k, (a, b) in changed.items()]

    def _refuse_strangers(self) -> None:
        if files.newest_update(self.checkpoints) >= 0:
            raise errors.BadInput(
                f"--workdir={self.path} has checkpoints but no config.json. Choose"
                " another folder."
            )

    def open(self, new: config_dict.ConfigDict) -> None:
        """Makes the folder, locks it, and writes the config into it.

        Raises:
          BadInput: a live run has it, or it cannot be written. Nothing is changed.
        """
        self._made, path = [], self.path
        while not os.path.lexists(path):
            self._made.append(path)
            path = os.path.dirname(path)
        try:
            os.makedirs(self.path, exist_ok=True)
            self._take_lock()
            os.makedirs(self.logs, exist_ok=True)
            os.makedirs(self.checkpoints, exist_ok=True)
            self.run = self._count()
            files.write_atomically(self._config, fields.to_json(new) + "\n")
        except OSError as error:
            self._undo()
            raise errors.BadInput(
                f"--workdir={self.path} cannot be written to ({error}). Choose another"
                " folder."
            ) from error

    def _take_lock(self) -> None:
        path = os.path.join(self.path, "lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise self._in_use() from error

    def withdraw(self) -> None:
        """Removes all folders of this run, unless it has learned something."""
        if files.newest_update(self.checkpoints) <= 0:
            self._undo()

    def _undo(self) -> None:
        """Removes the folders that `open` made, unless another run uses them."""
        if self._lock >= 0 and self.path in self._made:
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()
        for path in self._made:
            with contextlib.suppress(OSError):  # another run is in there
                os.rmdir(path)

    def _count(self) -> int:
        """Counts earlier runs; each added one byte to the lock file at its start."""
        before = os.fstat(self._lock).st_size
        os.pwrite(self._lock, b".", before)
        os.fsync(self._lock)
        return before

    def _in_use(self) -> errors.BadInput:
        return errors.BadInput(
            f"--workdir={self.path} is in use by a live run. Choose another folder, or"
            " stop that run first."
        )

    def check_unused(self) -> None:
        """Raises BadInput if a live run has it; locks and writes nothing."""
        if is_live(self.path):
            raise self._in_use()

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _nearest(path: str) -> str:
    """Returns `path`, or its innermost parent that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def is_live(path: str) -> bool:
    """Returns True if a live run has the folder.

    It holds the lock as a reader for an instant. A run that starts then is refused.
    """
    try:
        lock = os.open(os.path.join(path, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_config(path: str) -> config_dict.ConfigDict:
    """Reads the config of the run in `path`.

    Raises:
      BadInput: no run has been there, or its config cannot be read.
    """
    file_path = os.path.join(path, "config.json")
    if not os.path.exists(file_path):
        raise errors.BadInput(
            f"{path} has no config.json. Name the --workdir of a run of impala-train."
        )
    with open(file_path, errors="replace") as file:
        text = file.read()
    try:
        return fields.from_json(text)
    except errors.BadInput as error:
        raise errors.BadInput(f"{file_path}: {error}") from error
