"""Starts a training in the background, which needs no terminal."""

import contextlib
import os
import shlex
import subprocess
import sys
import time

from impala_mp import errors

_LOOK_SECS = 0.05  # between two looks at a training that starts


def train(arguments: list[str], path: str) -> int:
    """Starts `impala-train` in a session without a terminal; returns the exit code.

    It returns when the training runs, or when it has ended before.

    Args:
      arguments: of impala-train, without --detach.
      path: folder of the run.

    Raises:
      BadInput: the file for its output cannot be made.
    """
    output = f"{os.path.abspath(path)}.log"
    command = [sys.executable, "-m", "impala_mp.cli.train", *arguments]
    started, made = time.time(), _missing(os.path.dirname(output))
    try:
        os.makedirs(os.path.dirname(output), exist_ok=True)
        with open(output, "ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise errors.BadInput(
            f"the output of the training cannot be written ({error}). Choose another"
            " --workdir."
        ) from error
    while process.poll() is None and not _runs(path, started):
        time.sleep(_LOOK_SECS)
    if process.returncode:
        _show(output, made)
        return process.returncode
    print(
        f"Training in the background, process {process.pid}: {path}\n"
        f"Output: {output}\n"
        f"Watch:  impala-status {shlex.quote(path)}\n"
        f"Stop:   kill {process.pid}"
    )
    return 0


def _runs(path: str, since: float) -> bool:
    """Returns whether the run in `path` has written its health after `since`."""
    with contextlib.suppress(OSError):
        return os.path.getmtime(os.path.join(path, "health.json")) >= since
    return False


def _missing(folder: str) -> list[str]:
    """Returns the folders that `folder` lacks, the innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _show(output: str, made: list[str]) -> None:
    """Prints the output of a training that has failed; removes it and its folders."""
    with open(output, errors="replace") as file:
        print(file.read().rstrip(), file=sys.stderr)
    os.remove(output)
    for folder in made:
        with contextlib.suppress(OSError):  # other runs are in there
            os.rmdir(folder)
