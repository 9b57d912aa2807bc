"""Start of `impala-train`: environment variables, signals, then the imports."""

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from impala_mp import errors
from impala_mp.runtime import fork_server, signals

# For this process and its children. One thread per process unless torch sets more. The
# allocator keeps its memory: returning a batch to the kernel and faulting it in again
# costs a CPU learner up to half of its speed.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # Learner threads that spin while they wait take the actors' cores: Pong with the
    # deep network trains at 264 steps/s with spinning, at 334 without.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
# Parameters of glibc's mallopt, for processes that are forked from this one.
_MALLOPT = {
    "MALLOC_MMAP_MAX_": -4,
    "MALLOC_TRIM_THRESHOLD_": -1,
    "MALLOC_TOP_PAD_": -2,
}
_IN_MEMORY = "/dev/shm"


def set_environment() -> None:
    """Sets the variables that the user has not set, for this and later processes.

    Must run before torch is imported.
    """
    for name, value in ENVIRONMENT.items():
        if name not in os.environ:
            os.environ[name] = value
            if name in _MALLOPT:  # read when a process starts, but not at a fork
                with contextlib.suppress(AttributeError):  # not glibc
                    ctypes.CDLL(None).mallopt(_MALLOPT[name], int(value))


def set_temporary_folder() -> None:
    """Sets TMPDIR to a folder in memory if no usual one can be written.

    Raises:
      BadInput: that one cannot be written either.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        if not os.access(_IN_MEMORY, os.W_OK):
            raise errors.BadInput(
                "no folder for temporary files can be written. Set TMPDIR to one."
            ) from error
        os.environ["TMPDIR"] = tempfile.tempdir = _IN_MEMORY


def prepare(config: Any) -> Callable[..., None]:
    """Prepares this process for a training; returns `program.train`."""
    if config.runtime.mode == "processes":
        signals.exit_on_signals(os._exit)
    from impala_mp.runtime import program, streams

    if config.runtime.mode == "processes":
        # The exception removes the folder of the socket.
        signals.exit_on_signals(signals.interrupt)
        with contextlib.suppress(OSError):  # the supervisor retries and reports it
            fork_server.start(by_fork=True)
    # An import may swallow the exception; from here on it cleans up.
    signals.exit_on_signals(signals.interrupt)
    streams.survive_errors()
    return program.train


def train(
    config: Any,
    path: str,
    profile_updates: int,
    changes: Sequence[str] = (),
    start_from: str = "",
) -> int:
    """Trains; returns the exit code. The arguments are those of `program.train`."""
    run = prepare(config)
    try:
        run(config, path, profile_updates, changes, start_from)
    except errors.RunFailed as error:
        print(f"impala-train: {error}", file=sys.stderr)
        return 1
    return 0


def check(
    config: Any, path: str, changes: Sequence[str] = (), start_from: str = ""
) -> int:
    """Checks a training; returns the exit code. The arguments are those of `train`."""
    from impala_mp.runtime import preflight

    return 0 if preflight.check(config, path, changes, start_from) else 2
