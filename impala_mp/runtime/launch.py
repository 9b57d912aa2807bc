"""The first moments of `impala-train`: environment, signals, then the imports."""

import contextlib
import os
import sys
from typing import Any

from impala_mp.runtime import fork_server, signals

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


def train(config: Any, path: str, profile_updates: int) -> int:
    """Trains; returns the exit code."""
    if config.runtime.mode == "processes":
        signals.exit_on_signals(
            sys.exit
        )  # so that the socket's folder goes in any case
        with contextlib.suppress(OSError):  # the supervisor tries again, and says so
            fork_server.start()  # it imports torch while this process does
        signals.exit_on_signals(os._exit)
    from impala_mp import errors
    from impala_mp.runtime import program, streams
    from impala_mp.workers import learner_loop

    signals.exit_on_signals(
        sys.exit
    )  # imports might have swallowed it; now all is cleaned up
    streams.survive_errors()
    try:
        program.train(config, path, profile_updates)
    except (errors.RunFailed, learner_loop.NotSaved) as error:
        print(f"impala-train: {error}", file=sys.stderr)
        return 1
    signals.ignore_signals()
    return 0


def check(config: Any, path: str | None) -> int:
    """Looks at what would go wrong in a training; returns the exit code."""
    from impala_mp.runtime import preflight

    return 0 if preflight.check(config, path) else 2
