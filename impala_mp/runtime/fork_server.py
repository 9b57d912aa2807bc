"""Fork server with torch preloaded, so that a child starts in 20 ms."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import forkserver, process, resource_tracker, util
from typing import Any

_DESCRIPTORS = "/proc/self/fd/"
_PRELOAD = ["impala_mp.runtime.preload"]
_SPAWN: Any = util.spawnv_passfds
_OTHERS = {signal.SIGTERM, signal.SIGINT}  # the resource tracker handles these


def start(by_fork: bool = False) -> None:
    """Starts the server unless it runs; it is reachable through a descriptor only.

    With `by_fork` it is a copy of this process, which has the imports already, if this
    process has a single thread. Otherwise it begins as a new Python.

    No kill leaves a file behind. `timeout` and Slurm signal all processes, but only the
    supervisor acts on it. The server and the resource tracker inherit blocked signals,
    and the children unblock them (`entry_points`).

    Raises:
      OSError: for example, the disk is full.
    """
    if _runs():
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
    blocked = {signal.SIGUSR1, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        with _with_this_path():
            resource_tracker.ensure_running()  # it unblocks the others when it starts
            signal.pthread_sigmask(signal.SIG_BLOCK, _OTHERS)
            with _by_fork() if by_fork and _is_alone() else contextlib.nullcontext():
                _start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill() -> None:
    """Kills the server: a start that waits for it fails with EOFError."""
    if _runs():
        os.kill(_server()._forkserver_pid, signal.SIGKILL)


@contextlib.contextmanager
def _with_this_path() -> Iterator[None]:
    """Starts Python's processes with the sys.path of this one.

    They run `python -c`, which would import from the current folder first.
    """
    spawn: Any = util.spawnv_passfds
    path = [each or os.getcwd() for each in sys.path if isinstance(each, str)]

    def spawn_with_path(executable: Any, args: list[Any], descriptors: Any) -> Any:
        *options, code = args
        code = f"import sys; sys.path[:] = {path!r}; {code}"
        return spawn(executable, [*options, code], descriptors)

    util.spawnv_passfds = spawn_with_path
    try:
        yield
    finally:
        util.spawnv_passfds = spawn


def _is_alone() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


@contextlib.contextmanager
def _by_fork() -> Iterator[None]:
    """Starts Python's processes by a fork that goes on as a new Python would."""
    spawn: Any = util.spawnv_passfds
    util.spawnv_passfds = _fork
    try:
        yield
    finally:
        util.spawnv_passfds = spawn


def _fork(executable: Any, args: list[Any], descriptors: list[int]) -> int:
    """Runs the code of `python -c` in a fork; returns its pid."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _forget(descriptors)
        exec(args[-1], {})
        code = 0
    except SystemExit:  # no client is left
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _forget(descriptors: list[int]) -> None:
    """Gives up what a new Python would not have: handlers, descriptors, locks."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    kept = {0, 1, 2, *descriptors}
    for each in map(int, os.listdir("/proc/self/fd")):
        if each not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(each)
    tracker: Any = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    _server()._lock, tracker._lock = threading.Lock(), threading.RLock()
    tracker._fd = tracker._pid = None
    util.spawnv_passfds = _SPAWN


def _runs() -> bool:
    """Returns True if a server is alive; does not reap a dead one."""
    pid = _server()._forkserver_pid
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return pid is not None and os.waitid(os.P_PID, pid, flags) is None


def _server() -> Any:
    return forkserver._forkserver  # type: ignore[attr-defined]


def _start() -> None:
    settings: Any = process.current_process()
    # A child of another server inherits the address of that one.
    old = _server()._forkserver_pid and _server()._forkserver_address
    folder = tempfile.mkdtemp(prefix="impala-")
    # A socket's address has 107 bytes; the folder's own path may be longer.
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    settings._config["tempdir"] = f"{_DESCRIPTORS}{opened}"
    try:
        forkserver.ensure_running()
        _hide_address(_server())
    finally:
        del settings._config["tempdir"]
        os.close(opened)
        shutil.rmtree(folder)
    if old:
        os.close(int(old.removeprefix(_DESCRIPTORS)))


def _hide_address(server: Any) -> None:
    """Replaces the socket's name by a path in /proc, which works while it is open."""
    socket = os.open(server._forkserver_address, os.O_PATH | os.O_CLOEXEC)
    server._forkserver_address = f"{_DESCRIPTORS}{socket}"
