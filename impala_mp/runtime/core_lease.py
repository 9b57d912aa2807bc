"""Lease of the cores that a run binds its threads to, among the runs of a user.

Each run plans for the whole machine. Two that bind their threads to the first cores
leave the others idle: on two cores they made 1,390 steps a second each, and 2,000 with
a core each.
"""

import fcntl
import itertools
import os
import tempfile
from typing import Any, TextIO

from impala_mp.config import container_limits, derived


class Lease:
    """Lease of cores. The kernel ends it with the process, if not `close`."""

    def __init__(self, count: int) -> None:
        """Leases `count` cores that no other run has, or none if there are fewer."""
        self.cores: list[int] = []  # without any, the kernel places the threads
        self.sentence = ""  # why there are none, if other runs are the cause
        self._file: TextIO | None = None
        cores = container_limits.cores_to_bind()
        if not 0 < count <= len(cores):
            return
        path = os.path.join(tempfile.gettempdir(), f"impala_mp-cores-{os.geteuid()}")
        try:
            # A byte for each core.
            self._file = open(path, "a", opener=_open)  # noqa: SIM115
            os.utime(self._file.fileno())  # old files of this folder may be removed
        except OSError:  # there is no place for it
            self.cores = cores[:count]
            return
        free = (core for core in cores if _take(self._file, core))
        try:
            self.cores = list(itertools.islice(free, count))
        except OSError:  # a file system without locks
            self.cores = cores[:count]
            return
        if len(self.cores) < count:
            self.close()
            self.sentence = (
                f"Other runs have bound their threads to cores, and {len(self.cores)}"
                f" are free for the {count} threads of this one. So it binds none. Set"
                " config.actors.count and config.learner.threads for runs side by side."
            )
            self.cores = []

    def close(self) -> None:
        """Ends it."""
        if self._file is not None:
            self._file.close()


def of_run(config: Any, num_cores: int) -> Lease:
    """Leases a core for each thread of a run; none in lockstep, which is one thread."""
    is_alone = config.runtime.mode == "lockstep"
    return Lease(0 if is_alone else derived.num_threads(config, num_cores))


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _take(file: TextIO, core: int) -> bool:
    """Returns whether the core was free, and is leased now."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, core)
    except (BlockingIOError, PermissionError):
        return False
    return True
