"""A training seen from outside: which of its processes are left."""

import os
import subprocess
import sys

import harness


def test_survivors_are_named_however_the_pids_are_given():
    me = os.getpid()
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        for pids in ([me, process.pid], iter([me, process.pid])):
            assert harness.survivors(pids, 0.05) == [me]
