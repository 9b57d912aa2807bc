"""Trains from Python: a separate process does what `impala-train` does.

The caller's main module is never imported again, its random numbers, signal handlers
and threads stay as they are, and the allocator settings hold from the first instruction
of the process on.
"""

import codecs
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import connection, spawn
from typing import Any

from ml_collections import config_dict

from impala_mp import errors
from impala_mp.api import child, notebook, run as run_lib, settings
from impala_mp.cli import config_file, what
from impala_mp.config import by_value, fields as fields_lib
from impala_mp.monitoring import curves
from impala_mp.runtime import launch, pidfd, signals
from impala_mp.storage import files, trust as trust_lib, workdir as workdir_lib

_taken: set[str] = set()  # folders that this process has chosen
_lock = threading.Lock()


def train(
    environment: Any = None,
    /,
    *,
    workdir: str | os.PathLike[str] | None = None,
    config: Any = None,
    start_from: str | os.PathLike[str] = "",
    change: Mapping[str, Any] | None = None,
    trust: bool = False,
    **fields: Any,
) -> run_lib.Run:
    """Trains an agent, or resumes the run in `workdir`; returns the run.

        im.train(MyEnv, optimizer=dict(learning_rate=1e-3), workdir="runs/mine")
        im.train(MyEnv, **{"loss.entropy_cost": 0.01})

    Ctrl-C stops it as it stops `impala-train`: the run is saved and returned. A second
    Ctrl-C, more than a second later, does not wait for that.

    Args:
      environment: an id or a preset, as in `impala-train WHAT`, or a class or function
        that makes an environment; several in a list are tasks. None: as in `config`, or
        in the run to resume. What no module has, for example a class in a notebook,
        goes to the processes by value.
      workdir: folder of the run; None: runs/ENVIRONMENT/DATE.
      config: a ConfigDict, or FILE.py[:VARIANT]; None: the defaults, or a preset's.
      start_from: run that a new run takes its first weights from.
      change: fields by dotted name that get another value in a resumed run.
      trust: True resumes a run whose code this user has not trained here.
      **fields: fields of the config, by name or dotted name, groups as dicts. Classes
        and functions may stand where the config takes module:factory.

    Raises:
      BadInput: a value that cannot work; nothing is started or left behind.
      RunFailed: a failure that no restart repairs; the run can be resumed.
      KeyboardInterrupt: Ctrl-C before anything was saved.
    """
    pidfd.check()
    with tempfile.TemporaryDirectory(prefix="impala-") as folder:
        changes = dict(change or {})
        for name in changes:
            what.check_changeable(name)
        is_stored = environment is None and config is None and workdir is not None
        config = _stored(workdir, trust) if is_stored else _whole(config)
        made = settings.make(environment, config, {**fields, **changes}, folder)
        path = _folder(workdir, settings.short_name(made))
        job = {
            "config": fields_lib.to_json(made),
            "workdir": path,
            "changes": list(changes),
            "start_from": os.fspath(start_from),
        }
        files.write_atomically(os.path.join(folder, child.JOB), json.dumps(job))
        interrupted, code = _run(folder, _live_plot(path, made, folder))
        _raise_failure(os.path.join(folder, child.OUTCOME), code)
    if interrupted and workdir_lib.newest_update(path) < 0:
        raise KeyboardInterrupt
    run = run_lib.Run(path, is_own=True)
    _ = run.agent_steps  # reads the checkpoint
    return run


def _stored(workdir: Any, trust: bool) -> Any:
    """Returns the config of the run to resume. It may have fields of older versions."""
    config = workdir_lib.read_config(os.fspath(workdir))
    trust_lib.admit(config, os.fspath(workdir), trust)
    return config


def _whole(config: Any) -> Any:
    """Returns `config`. Raises BadInput if a ConfigDict lacks fields or has others."""
    if isinstance(config, config_dict.ConfigDict):
        config_file.check_whole("config", config)
    return config


def _folder(workdir: str | os.PathLike[str] | None, name: str) -> str:
    try:
        if workdir is not None:
            return os.path.abspath(os.fspath(workdir))
        with _lock:
            path = os.path.abspath(what.unused_folder(name, _taken))
            _taken.add(path)
        return path
    except FileNotFoundError as error:
        raise errors.BadInput(
            f"the current folder cannot be used ({error}). Change to another."
        ) from error


def _live_plot(path: str, config: Any, folder: str) -> notebook.LivePlot | None:
    """Returns the plot of a run for a notebook; elsewhere None."""
    show = notebook.display()
    if show is None:
        return None
    name = by_value.without_digests(config.environment.id)
    file = os.path.join(folder, "curve.png")

    def draw() -> run_lib.Image:
        curves.plot({name: [path]}, file)
        return run_lib.Image(file)

    return notebook.LivePlot(show, draw)


def _run(folder: str, plot: notebook.LivePlot | None) -> tuple[bool, int]:
    """Runs the training; returns whether Ctrl-C came, and the exit code."""
    with _started(folder) as process, _pidfd(process.pid) as ended:
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        output, interrupted = process.stdout, False
        while True:
            try:
                if plot:
                    plot.tick()
                waited = [ended] if output is None else [ended, output.fileno()]
                ready = connection.wait(waited, plot.secs() if plot else None)
                if not ready:
                    continue
                if output is not None and output.fileno() in ready:
                    data = os.read(output.fileno(), 2**16)
                    _show(decoder.decode(data, not data))
                    output = output if data else None
                    continue
                code = process.wait()
                if plot:
                    plot.redraw()
                return interrupted, code
            except KeyboardInterrupt:
                interrupted = True
                process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = pidfd.of(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _started(folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the process of the training, which ends with its context.

    Its standard input is a pipe whose closing stops it, also when this process dies.
    A terminal's Ctrl-C reaches this process, which passes it on once. In a thread,
    where no KeyboardInterrupt comes, it reaches the training itself.
    """
    path = [each or os.getcwd() for each in sys.path if isinstance(each, str)]
    code = (
        f"import sys; sys.path[:] = {[*path, folder]!r}; from impala_mp.api import"
        f" child; child.main({folder!r})"
    )
    shown_here = sys.stdout is not sys.__stdout__ or sys.stdout is None
    environ = {**launch.ENVIRONMENT, **os.environ}
    if shown_here:
        environ["PYTHONIOENCODING"] = "utf-8"
        environ.pop("FORCE_COLOR", None)  # a notebook's; a display is redrawn there
    else:
        sys.stdout.flush()
    is_main = threading.current_thread() is threading.main_thread()
    process = subprocess.Popen(
        [os.fsdecode(spawn.get_executable()), "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if shown_here else None,
        stderr=subprocess.STDOUT if shown_here else None,
        env=environ,
        process_group=0 if is_main else None,
    )
    with process:
        yield process


def _show(text: str) -> None:
    """Writes output of the training where the caller's `print` writes."""
    if sys.stdout is not None and text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _raise_failure(path: str, code: int) -> None:
    """Raises the error that ended a training, if one did."""
    outcome = None
    with contextlib.suppress(OSError, ValueError):
        outcome = files.read_json(path)
    if outcome:
        kind = {"BadInput": errors.BadInput}.get(outcome["kind"], errors.RunFailed)
        raise kind(outcome["text"])
    if code in (0, 128 + signal.SIGINT, -signal.SIGINT):
        if code:
            raise KeyboardInterrupt
        return
    cause = (
        f"was ended by {signals.name_of(-code)}"
        if code < 0
        else f"ended with exit code {code}"
    )
    raise errors.RunFailed(
        f"the process of the training {cause}. Its output is above. im.train with the"
        " same workdir resumes the run."
    )
