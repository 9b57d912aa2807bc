"""Starts a training in the background, which needs no terminal."""

import contextlib
import os
import shlex
import subprocess
import sys
import time

from impala_mp import errors
from impala_mp.monitoring import health as health_lib
from impala_mp.storage import workdir

_LOOK_SECS = 0.05  # between two looks at a training that starts


def train(arguments: list[str], path: str) -> int:
    """Starts `impala-train` in a session without a terminal; returns the exit code.

    It returns when the training runs, or when it has ended before.

    Args:
      arguments: of impala-train; --detach among them has no effect.
      path: folder of the run.

    Raises:
      BadInput: the file for its output cannot be made, or a live run has the folder.
    """
    output = f"{os.path.abspath(path)}.log"
    command = [sys.executable, "-m", "impala_mp.cli.train", *arguments, "--nodetach"]
    started, made = time.time(), _missing(output)
    try:
        os.makedirs(os.path.dirname(output), exist_ok=True)
        workdir.Workdir(path).check_unused()  # its output is in the same file
        with open(output, "ab") as file:
            before = file.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        _remove(made)
        raise errors.BadInput(
            f"the output of the training cannot be written ({error}). Choose another"
            " --workdir."
        ) from error
    while process.poll() is None and not _runs(path, process.pid, started):
        time.sleep(_LOOK_SECS)
    if process.returncode:
        _show(output, before)
        _remove(made)
        return process.returncode
    print(
        f"Training in the background, process {process.pid}: {path}\n"
        f"Output: {output}\n"
        f"Watch:  impala-status {shlex.quote(path)}\n"
        f"Stop:   kill {process.pid}"
    )
    return 0


def _runs(path: str, pid: int, since: float) -> bool:
    """Returns whether process `pid` has written the run's health after `since`.

    Another run may have started in the folder meanwhile, and writes it as well.
    """
    with contextlib.suppress(errors.BadInput):
        health = health_lib.load(path)
        return bool(health["processes"][0]["pid"] == pid and health["time"] >= since)
    return False


def _missing(path: str) -> list[str]:
    """Returns `path` and folders above it, as far as missing, the innermost first."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _show(output: str, start: int) -> None:
    """Prints the output of a training that has failed, which begins at byte `start`."""
    with open(output, "rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    print(text.rstrip(), file=sys.stderr)


def _remove(made: list[str]) -> None:
    """Removes the file of the output and its folders, unless they were there before."""
    for path in made:
        with contextlib.suppress(OSError):  # other runs are in there
            remove = os.remove if path == made[0] else os.rmdir
            remove(path)
