"""The first moments of `impala-train`: environment, signals, then the imports."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from impala_mp import fork_server

# For this process and its children. One thread a process unless torch is told
# otherwise; and an allocator that keeps what it has: giving a batch back to the
# kernel and faulting it in again costs a CPU learner up to half of its speed.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # A learner's threads that spin while they wait take the cores of the actors: Pong
    # with the deep network trains at 264 steps/s with that, at 334 without.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}


def set_environment() -> None:
    """For processes started from now on; what the user has set stays. Before torch."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def exit_on_signals(leave: Callable[[int], Any]) -> None:
    """SIGTERM and SIGINT `leave` with 143 and 130, until the supervisor takes them.

    SIGUSR1 asks for a checkpoint of what has not begun: nothing is done.
    """
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: leave(128 + number))


def train(config: Any, path: str, profile_updates: int) -> int:
    """Trains; returns the exit code."""
    if config.runtime.mode == "processes":
        exit_on_signals(sys.exit)  # so that the socket's folder goes in any case
        with contextlib.suppress(OSError):  # the supervisor tries again, and says so
            fork_server.start()  # it imports torch while this process does
        exit_on_signals(os._exit)
    from impala_mp import ending, errors, output, program, training

    exit_on_signals(sys.exit)  # imports might have swallowed it; now all is cleaned up
    output.survive_errors()
    try:
        program.train(config, path, profile_updates)
    except (errors.RunFailed, training.NotSaved) as error:
        print(f"impala-train: {error}", file=sys.stderr)
        return 1
    ending.ignore_signals()
    return 0


def check(config: Any, path: str | None) -> int:
    """Looks at what would go wrong in a training; returns the exit code."""
    from impala_mp import preflight

    return 0 if preflight.check(config, path) else 2
