"""A process ends in limited time, with its code also after careless user code."""

import subprocess
import sys

import pytest

import harness

_SCRIPT = """
import atexit, concurrent.futures, multiprocessing, os, signal, sys, threading, time
from impala_mp.runtime import process_end

process_end.LIMIT_SECS = 1.0
process_end._KILL_SECS = 0.2


def deaf():
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    time.sleep(600)


if __name__ == "__main__":
    print("pids", os.getpid(), end=" ", flush=True)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    {left}
    for child in multiprocessing.active_children():
        print(child.pid, end=" ")
    print()
    process_end.leave(7)
"""
_FORK = "multiprocessing.get_context('fork').Process(target={0}, daemon={1})"
_LEFT = {
    "nothing": ("pass", ""),
    "thread": ("threading.Thread(target=time.sleep, args=(600,)).start()", "thread"),
    "daemonic thread": (
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "",
    ),
    "idle executor": (
        "concurrent.futures.ThreadPoolExecutor().submit(int)",
        "",
    ),
    "busy executor": (
        "concurrent.futures.ThreadPoolExecutor().submit(time.sleep, 600)",
        "thread 'ThreadPoolExecutor",
    ),
    "exit handler": ("atexit.register(time.sleep, 600)", "an exit handler"),
    "failing exit handler": ("atexit.register(sys.exit, 3)", ""),
    "child": (
        _FORK.format("deaf", False) + ".start()",
        "child process 'ForkProcess-1'",
    ),
    "daemonic child": (_FORK.format("deaf", True) + ".start()", ""),
}


@pytest.mark.parametrize("name", _LEFT)
def test_the_end_is_bounded_and_has_its_code(tmp_path, name):
    left, sentence = _LEFT[name]
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace("{left}", left))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60.0
    )
    assert done.returncode == 7
    assert sentence in done.stderr
    assert ("The process ends without it." in done.stderr) == bool(sentence)
    pids = [int(word) for word in done.stdout.split()[1:]]
    assert harness.survivors(pids, 10.0) == []


def test_exit_handlers_run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit\n"
        "from impala_mp.runtime import process_end\n"
        "atexit.register(print, 'inherited')\n"
        "process_end.forget_exit_handlers()\n"
        "atexit.register(print, 'own')\n"
        "process_end.leave(0)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60.0
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "own\n", "")
