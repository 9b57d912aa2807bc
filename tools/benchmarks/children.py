"""Forked processes of the subjects: they end with the benchmark."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkProcess
from typing import Any

FORK = multiprocessing.get_context("fork")
_PR_SET_PDEATHSIG = 1


def start(function: Callable[..., object], *args: Any) -> ForkProcess:
    """Starts a process that is killed when this one ends, by SIGKILL too."""
    parent = os.getpid()

    def main() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # in C code, too
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # it had not ended before
            function(*args)

    process = FORK.Process(target=main, name=function.__name__, daemon=True)
    process.start()
    return process


def check(processes: Iterable[ForkProcess]) -> None:
    """Raises a RuntimeError if a process has failed."""
    for process in processes:
        if process.exitcode:
            raise RuntimeError(
                f"the benchmark's process {process.name} ({process.pid}) has failed"
                f" with exit code {process.exitcode}."
            )


def end(process: ForkProcess) -> None:
    process.kill()
    process.join()
