"""Streams that a full disk or a closed pipe takes nobody down with."""

import os
import subprocess
import sys

_CODE = """
import sys, traceback
from impala_mp.runtime import streams

streams.survive_errors()
for number in range(1000):
    print("a line that is longer than nothing at all", number)
try:
    raise ValueError("for the log")
except ValueError:
    traceback.print_exc()
sys.stdout.flush()
print(sys.stdout.isatty(), sys.stdout.fileno(), file=sys.stderr)
sys.exit(7)
"""


def _run(stdout, stderr):
    command = [sys.executable, "-c", _CODE]
    return subprocess.run(command, stdout=stdout, stderr=stderr, text=True)


def test_a_full_disk_takes_what_is_printed_and_no_more():
    with open("/dev/full", "w") as full:
        assert _run(full, full).returncode == 7


def test_writable_output_is_written():
    done = _run(subprocess.PIPE, subprocess.PIPE)
    assert done.returncode == 7
    assert done.stdout.count("\n") == 1000
    assert "ValueError: for the log" in done.stderr
    assert done.stderr.endswith("False 1\n")


_ENDING = """
import os, sys
from impala_mp.runtime import streams

streams.fill_gaps()
streams.end_on_errors()
try:
    print("a line")
    print("another")
except streams.OutputFailed as error:
    print("not written")
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""


def _end(stdout):
    command = [sys.executable, "-c", _ENDING]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


def test_the_first_failed_write_ends_a_command():
    with open("/dev/full", "w") as full:
        code, text = _end(full)
    sentence = "the output cannot be written (No space left on device).\n"
    assert (code, text) == (1, sentence)
    reading, writing = os.pipe()
    os.close(reading)
    assert _end(writing)[0] == 141
    os.close(writing)
    assert _end(subprocess.PIPE) == (0, "")


def test_closed_streams_are_no_error():
    command = f"{sys.executable} -c '{_ENDING}' <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 0
