"""Children for tests that kill: forked, NumPy only, ended by SIGKILL."""

import contextlib
import os
import signal
import traceback


@contextlib.contextmanager
def child(function, *args):
    """Runs `function` in a forked child; yields its pid; kills it at the end."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*args)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    try:
        yield pid
    finally:
        kill(pid)


def kill(pid):
    """SIGKILL, and the zombie gone; quiet if it is dead already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def wait(pid):
    """The child's wait status."""
    return os.waitpid(pid, 0)[1]


def die():
    """What a test plants at a step of a protocol."""
    os.kill(os.getpid(), signal.SIGKILL)
