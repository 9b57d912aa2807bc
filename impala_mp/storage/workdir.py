"""Folder of a run, with one live owner and one config."""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import config_dict

from impala_mp import errors
from impala_mp.config import by_value, effects, fields, validation
from impala_mp.storage import files, machine, trust

_MAX_CONFIG_BYTES = 2**20
# What a run writes there beside the files that it replaces as a whole.
_FOLDERS = (
    "checkpoints",
    "logs",
    "questions",
    "crashes",
    "profiles",
    "tensorboard",  # of older versions
    "films",
    "policies",
    "league",
    by_value.FOLDER,
)
_APPENDED = (
    "lock",
    "metrics.jsonl",
    "changes.jsonl",
    "population.jsonl",
    "hosts.jsonl",
    "episodes.csv",
    "evaluations.jsonl",
)


class Workdir:
    """Paths in a run's folder, and its lock while this object is open.

    The lock is the kernel's, on an open file, so a killed run cannot leave it behind.
    """

    def __init__(self, path: str) -> None:
        """Raises BadInput if the folder's name is not text."""
        check_name(path)
        self.path = os.path.abspath(path)
        self.checkpoints = os.path.join(self.path, "checkpoints")
        self.policies = os.path.join(self.path, "policies")  # if there are several
        self.logs = os.path.join(self.path, "logs")
        self.run = 0  # number of earlier runs in this folder
        self._config = os.path.join(self.path, "config.json")
        self._lock = -1
        # Fields that --change gave another value: before and after.
        self._changed: dict[str, tuple[Any, Any]] = {}
        self._made: list[str] = []  # folders made by `open`, the innermost first

    def checkpoints_of(self, policy: str) -> str:
        """Returns the folder of a policy's checkpoints; "" is a single one."""
        if not policy:
            return self.checkpoints
        return os.path.join(self.policies, policy, "checkpoints")

    def names_of_policies(self) -> tuple[str, ...]:
        """Returns the policies that have a folder here; ("",) for a single one."""
        there = os.listdir(self.policies) if os.path.isdir(self.policies) else []
        return tuple(sorted(there)) or ("",)

    def stored(self) -> config_dict.ConfigDict | None:
        """Returns the config of the run in this folder, or None without a run."""
        return read_config(self.path) if os.path.lexists(self._config) else None

    def check(
        self, new: config_dict.ConfigDict, changes: Sequence[str] = ()
    ) -> list[str]:
        """Compares `new` with the config in the folder; returns a line per change.

        Args:
          changes: fields that may change beside the operational ones.

        Raises:
          BadInput: the folder belongs to another experiment, or cannot be made.
        """
        there = _nearest(self.path)
        if not os.path.isdir(there):
            raise errors.BadInput(
                f"--workdir={self.path} cannot be made, because {there} is a file. Name"
                " a folder."
            )
        try:
            self._check_places()
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.path.lexists(self._config):
            self._refuse_strangers()
            if changes:
                raise errors.BadInput(
                    f"there is no run in {self.path} to change. Use"
                    f" --config.{changes[0]} for a new run."
                )
            return []
        changed = fields.differences(read_config(self.path), new)
        self._changed = {k: changed[k] for k in changes if k in changed}
        foreign = {
            k: (a, b)
            for k, (a, b) in changed.items()
            if not fields.is_operational(k)
            and k not in changes
            and by_value.without_digests(repr(a)) != by_value.without_digests(repr(b))
        }
        if foreign:
            lines = "; ".join(
                f"{k} is {a!r} there, {b!r} here" for k, (a, b) in foreign.items()
            )
            raise errors.BadInput(
                f"--workdir={self.path} belongs to another config ({lines}). Choose"
                " another folder, or set the same values."
            )
        return [f"{k} changes from {a!r} to {b!r}." for k, (a, b) in changed.items()]

    def _check_places(self) -> None:
        """Refuses what would send the run's output elsewhere, or cannot take it.

        Raises:
          BadInput: with the file or folder.
        """
        for name in _FOLDERS:
            _check_folder(os.path.join(self.path, name))
        logs = os.listdir(self.logs) if os.path.isdir(self.logs) else []
        for path in (
            *(os.path.join(self.path, name) for name in _APPENDED),
            *(os.path.join(self.logs, name) for name in logs),
        ):
            _check_file(path)

    def _refuse_strangers(self) -> None:
        if newest_update(self.path) >= 0:
            raise errors.BadInput(
                f"--workdir={self.path} has checkpoints but no config.json. Choose"
                " another folder."
            )

    def open(
        self, new: config_dict.ConfigDict, policies: Sequence[str] = ("",)
    ) -> None:
        """Makes the folder, locks it, and writes the config into it.

        `policies` are their names; "" is a single one.

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
            files.remove_stale(self.path)
            for name in _FOLDERS:
                for folder, _, _ in os.walk(os.path.join(self.path, name)):
                    files.remove_stale(folder)
            os.makedirs(self.logs, exist_ok=True)
            for name in policies:
                os.makedirs(self.checkpoints_of(name), exist_ok=True)
            self.run = self._count()
            self._journal()
            self._keep_code(new)
            files.write_atomically(self._config, fields.to_json(new) + "\n")
            machine.record(self.path)
        except OSError as error:
            self._undo()
            raise self._unwritable(error) from error

    def _journal(self) -> None:
        update = newest_update(self.path)
        for name, (before, after) in self._changed.items():
            line = {"time": time.time(), "update": update, "name": name}
            line |= {"from": before, "to": after, "by": "--change"}
            files.append(
                os.path.join(self.path, "changes.jsonl"), f"{json.dumps(line)}\n"
            )

    def _keep_code(self, config: config_dict.ConfigDict) -> None:
        """Copies the code by value that `config` names, readable by this user only."""
        folder = os.path.join(self.path, by_value.FOLDER)
        for module in {each.module for each in trust.names(config)}:
            path = os.path.join(folder, by_value.file_name(module))
            if not by_value.is_module(module) or os.path.exists(path):
                continue
            data = by_value.read(module)
            if data is not None:  # a child that needs it refuses the run
                os.makedirs(folder, exist_ok=True)
                with (
                    files.replacing(path) as temporary,
                    files.create(temporary) as file,
                ):
                    os.fchmod(file.fileno(), 0o600)
                    file.write(data)

    def _take_lock(self) -> None:
        path = os.path.join(self.path, "lock")
        with files.open_to_append(path) as file:
            self._lock = os.dup(file.fileno())
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise self._in_use() from error

    def withdraw(self) -> None:
        """Removes all folders of this run, unless it has learned something."""
        if newest_update(self.path) <= 0:
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
        os.write(self._lock, b".")  # at the end
        os.fsync(self._lock)
        return before

    def _unwritable(self, error: OSError) -> errors.BadInput:
        return errors.BadInput(
            f"--workdir={self.path} cannot be written to ({error}). Choose another"
            " folder."
        )

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


def check_name(path: str) -> None:
    """Raises BadInput if a folder's name is not UTF-8, which torch requires."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise errors.BadInput(
            f"the name of the folder {path!a} is not UTF-8. Rename it."
        ) from error


def _check_folder(path: str) -> None:
    """Refuses anything but a folder, or this user's link to one.

    Raises:
      BadInput: with the path.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
        raise _in_the_way(path, "another user's link")
    if not os.path.isdir(path):
        raise _in_the_way(path, "not a folder")


def _check_file(path: str) -> None:
    """Refuses anything but a regular file that can be written, or a free place.

    Raises:
      BadInput: with the path.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise _in_the_way(path, kind)
    if not os.access(path, os.R_OK | os.W_OK):
        raise _in_the_way(path, "not yours to read and write")


def _in_the_way(path: str, kind: str) -> errors.BadInput:
    return errors.BadInput(f"{path} is {kind}. Remove it, or choose another --workdir.")


def _nearest(path: str) -> str:
    """Returns `path`, or its innermost parent that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def newest_checkpoint(path: str) -> str:
    """Returns the newest checkpoint of the run in `path`, sound or not; or "".

    Of several policies it is the one with most updates.
    """
    folder = Workdir(path)
    there = [folder.checkpoints_of(name) for name in folder.names_of_policies()]
    update, newest = max((files.newest_update(each), each) for each in there)
    return os.path.join(newest, str(update)) if update >= 0 else ""


def newest_update(path: str) -> int:
    """Returns the update of `newest_checkpoint`; -1 without one."""
    newest = newest_checkpoint(path)
    return int(os.path.basename(newest)) if newest else -1


def is_live(path: str) -> bool:
    """Returns True if a live run has the folder.

    It holds the lock as a reader for an instant. A run that starts then is refused.

    Raises:
      BadInput: the lock cannot be read.
    """
    try:
        with files.open_to_read(os.path.join(path, "lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise errors.BadInput(
            f"the lock of the run in {path} cannot be read ({error}). Remove it, or"
            " name another run."
        ) from error
    return False


def read_config(path: str) -> config_dict.ConfigDict:
    """Reads the config of the run in `path`.

    Raises:
      BadInput: no run has been there, or its config cannot be read.
    """
    check_name(path)
    file_path = os.path.join(path, "config.json")
    try:
        text = files.read_bytes(file_path, _MAX_CONFIG_BYTES)
        config = fields.from_json(text.decode(errors="replace"))
        effects.reset(config)
        validation.check_fields(config)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.BadInput(
            f"{path} has no config.json. Name the --workdir of a run of impala-train."
        ) from error
    except (OSError, files.Damaged) as error:
        raise errors.BadInput(
            f"config.json in {path} cannot be read ({error}). Name another run, or"
            " restore the file."
        ) from error
    except errors.BadInput as error:
        raise errors.BadInput(f"{file_path}: {error}") from error
    return config
