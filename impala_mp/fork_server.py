"""The fork server: it holds torch, so that a child starts in 20 ms."""

import multiprocessing
import os
import shutil
import signal
import tempfile
from multiprocessing import forkserver, process, resource_tracker
from typing import Any

_DESCRIPTORS = "/proc/self/fd/"
_PRELOAD = ["impala_mp.workers"]


def start() -> None:
    """Starts it, unless it runs, reachable through a descriptor alone.

    No kill leaves a file behind. `timeout` and Slurm send SIGTERM to everyone; what it
    means the supervisor decides. The server inherits that it is blocked, and its
    children unblock it (`workers`).
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
    settings: Any = process.current_process()
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        folder = settings._config["tempdir"] = tempfile.mkdtemp(prefix="impala-")
        try:
            forkserver.ensure_running()
            _hide_address(forkserver._forkserver)  # type: ignore[attr-defined]
        finally:
            shutil.rmtree(folder)
            del settings._config["tempdir"]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hide_address(server: Any) -> None:
    """A socket has an inode as long as it is open; /proc leads to it without a name."""
    if not server._forkserver_address.startswith(_DESCRIPTORS):
        socket = os.open(server._forkserver_address, os.O_PATH | os.O_CLOEXEC)
        server._forkserver_address = f"{_DESCRIPTORS}{socket}"
