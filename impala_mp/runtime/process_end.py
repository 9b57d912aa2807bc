"""End of a process: bounded in time, even if user code has left things behind.

Threads that are no daemons, executors, child processes and exit handlers of an
environment get a limit of time. Then the process ends without them.
"""

import atexit
import contextlib
import logging
import multiprocessing
import os
import sys
import threading
import time
from multiprocessing import util
from typing import NoReturn

from impala_mp.runtime import signals

LIMIT_SECS = 3.0
_KILL_SECS = 1.0  # from SIGTERM to SIGKILL of a child process


def leave(code: int) -> NoReturn:
    """Ends this process with `code`, as an interpreter does, but in limited time."""
    signals.ignore_signals()
    threading.Thread(target=_force, args=(code,), daemon=True).start()
    with contextlib.suppress(BaseException):  # user code, which may raise anything
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        _end_daemons()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):
        util._exit_function()  # type: ignore[attr-defined]
    _exit(code)


def forget_exit_handlers() -> None:
    """Drops the exit handlers that this process inherited by a fork."""
    atexit._clear()


def _end_daemons() -> None:
    """Ends the daemonic child processes, which may inherit a handler of SIGTERM."""
    children = [each for each in multiprocessing.active_children() if each.daemon]
    for child in children:
        child.terminate()
    end = time.monotonic() + _KILL_SECS
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
    for child in children:
        child.kill()


def _force(code: int) -> None:
    time.sleep(LIMIT_SECS)
    with contextlib.suppress(BaseException):
        text = (
            f"{_what_is_left()} still runs {LIMIT_SECS:g} s after the end of the work,"
            " perhaps of the environment. The process ends without it.\n"
        )
        os.write(2, text.encode(errors="backslashreplace"))
    with contextlib.suppress(BaseException):
        for child in multiprocessing.active_children():
            child.kill()
    _exit(code)


def _what_is_left() -> str:
    threads = [
        repr(each.name)
        for each in threading.enumerate()
        if not each.daemon and each is not threading.main_thread()
    ]
    if threads:
        return f"thread {', '.join(threads)}"
    children = [repr(each.name) for each in multiprocessing.active_children()]
    return f"child process {', '.join(children)}" if children else "an exit handler"


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):  # a full disk, a closed pipe
            stream.flush()
    with contextlib.suppress(BaseException):
        logging.shutdown()
    os._exit(code)
