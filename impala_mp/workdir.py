"""The folder of a run: one live owner, one config."""

import contextlib
import fcntl
import os

from ml_collections import config_dict

from impala_mp import checkpoint, config, errors


class Workdir:
    """Paths in a run's folder, locked while this object lives.

    The lock is the kernel's, on an open file: a run that is killed cannot leave it
    behind.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.checkpoints = os.path.join(self.path, "checkpoints")
        self.logs = os.path.join(self.path, "logs")
        self._config = os.path.join(self.path, "config.json")
        self._lock = -1

    def stored(self) -> config_dict.ConfigDict | None:
        """The config of the run that lies here, if there is one."""
        return read_config(self.path) if os.path.exists(self._config) else None

    def check(self, new: config_dict.ConfigDict) -> list[str]:
        """Sentences on what this run changes of the config that lies here.

        Raises:
          BadInput: the folder belongs to another experiment.
        """
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise errors.BadInput(f"--workdir={self.path} is a file: name a folder.")
        if not os.path.exists(self._config):
            self._refuse_strangers()
            return []
        changed = config.differences(read_config(self.path), new)
        foreign = {k: v for k, v in changed.items() if not config.is_operational(k)}
        if foreign:
            lines = "; ".join(
                f"{k} is {a!r} there, {b!r} here" for k, (a, b) in foreign.items()
            )
            raise errors.BadInput(
                f"--workdir={self.path} belongs to another config ({lines}): choose"
                " another folder, or the same values."
            )
        return [f"{k} changes from {a!r} to {b!r}." for k, (a, b) in changed.items()]

    def _refuse_strangers(self) -> None:
        if checkpoint.exists(self.checkpoints):
            raise errors.BadInput(
                f"--workdir={self.path} has checkpoints but no config.json: choose"
                " another folder."
            )

    def open(self, new: config_dict.ConfigDict) -> None:
        """Makes the folder, locks it, and writes the config into it.

        Raises:
          BadInput: a live run has it.
        """
        os.makedirs(self.logs, exist_ok=True)
        os.makedirs(self.checkpoints, exist_ok=True)
        self._lock = os.open(
            os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise self._in_use() from error
        write_atomically(self._config, config.to_json(new) + "\n")

    def _in_use(self) -> errors.BadInput:
        return errors.BadInput(
            f"--workdir={self.path} is in use by a live run: choose another folder, or"
            " stop that run first."
        )

    def check_unused(self) -> None:
        """Raises BadInput if a live run has it; takes and makes nothing."""
        if is_live(self.path):
            raise self._in_use()

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def is_live(path: str) -> bool:
    """Whether a live run has the folder.

    For an instant this holds the lock as a reader, in which a run that starts would
    be refused.
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
    """The config of the run in `path`.

    Raises:
      BadInput: no run has been there.
    """
    file_path = os.path.join(path, "config.json")
    if not os.path.exists(file_path):
        raise errors.BadInput(
            f"{path} has no config.json: name the --workdir of a run of impala-train."
        )
    with open(file_path) as file:
        return config.from_json(file.read())


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
