"""The fork server is started once, whatever the disk has room for since."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration

# In a process of its own: pytest's shall not be anybody's parent.
_CODE = """
import errno, multiprocessing, os, signal, sys, tempfile
from multiprocessing import forkserver, resource_tracker
from impala_mp.runtime import fork_server


def full(prefix):
    raise OSError(errno.ENOSPC, "No space left on device")


def blocked(pid):
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("SigBlk"))
    return bool(int(line.split()[1], 16) & (1 << (signal.SIGUSR1 - 1)))


def work():
    inner = multiprocessing.get_context("spawn").Process(target=print, args=("inner",))
    inner.start()
    inner.join()
    print("a child", inner.exitcode, flush=True)


if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    os.set_inheritable(os.open(__file__, os.O_RDONLY), True)
    fork_server.start(by_fork="by_fork" in sys.argv)
    child = context.Process(target=work)
    child.start()
    child.join(60)
    kept = f"/proc/{forkserver._forkserver._forkserver_pid}/fd"
    print(__file__ in [os.readlink(f"{kept}/{fd}") for fd in os.listdir(kept)])
    make, tempfile.mkdtemp = tempfile.mkdtemp, full
    fork_server.start()
    server, tracker = forkserver._forkserver, resource_tracker._resource_tracker
    print(blocked(server._forkserver_pid), blocked(tracker._pid))
    before = len(os.listdir("/proc/self/fd"))
    os.kill(server._forkserver_pid, signal.SIGKILL)
    os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOWAIT)
    try:
        fork_server.start()
    except OSError as error:
        print(error.strerror)
    tempfile.mkdtemp = make
    fork_server.start()
    print(len(os.listdir("/proc/self/fd")) - before)
"""


@pytest.mark.parametrize(
    ("how", "folder"),
    [
        ("by_fork", "long" * 40),
        ("as a new Python", "tmp"),
        pytest.param("by_fork", "tmp", marks=pytest.mark.slow),
        pytest.param("as a new Python", "long" * 40, marks=pytest.mark.slow),
    ],
)
def test_a_live_fork_server_needs_no_room_and_a_dead_one_is_replaced(
    tmp_path, folder, how
):
    script = tmp_path / "script.py"
    script.write_text(_CODE)
    temporary = tmp_path / folder
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, script, how],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "TMPDIR": str(temporary)},
    )
    assert done.stdout.splitlines() == [
        *("inner", "a child 0", "False", "True True", "No space left on device", "0")
    ]
    assert list(temporary.iterdir()) == []
