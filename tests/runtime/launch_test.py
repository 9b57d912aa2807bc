"""Signals before there is a supervisor that could take them."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from impala_mp import errors
from impala_mp.runtime import launch

pytestmark = pytest.mark.integration

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CATCH = _ROOT / "experiments" / "catch.py"

# Says so when a module is about to be imported, and waits there.
_PAUSE = """
import sys, time


class Pause:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("importing", flush=True)
            time.sleep(60.0)


sys.meta_path.insert(0, Pause())
"""


def _session(leader):
    """Live processes of a session."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("module", ["ml_collections", "impala_mp.runtime.program"])
def test_a_signal_during_imports_ends_cleanly(tmp_path, module, number):
    hook, temporary = tmp_path / "hook", tmp_path / "tmp"
    hook.mkdir()
    temporary.mkdir()
    (hook / "sitecustomize.py").write_text(_PAUSE.format(module=module))
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "impala_mp.cli.train"),
            *(f"--config={_CATCH}", f"--workdir={tmp_path / 'run'}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{hook}:{_ROOT}",
            "TMPDIR": str(temporary),
        },
    )
    assert run.stdout.readline() == "importing\n"
    os.killpg(run.pid, signal.SIGUSR1)  # a request for a checkpoint ends nothing
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(0.5)
    run.send_signal(number)
    out, err = run.communicate(timeout=30.0)  # the fork server holds these pipes, too
    assert run.returncode == 128 + number
    assert out + err == ""
    deadline = time.monotonic() + 30.0
    while _session(run.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "run").exists()


def test_without_a_writable_folder_temporary_files_are_in_memory(monkeypatch):
    def none():
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    launch.set_temporary_folder()
    assert tempfile.tempdir == os.environ["TMPDIR"] == "/dev/shm"
    monkeypatch.setattr(launch, "_IN_MEMORY", "/nowhere")
    with pytest.raises(errors.BadInput, match="Set TMPDIR"):
        launch.set_temporary_folder()


_WATCHES_IMPORTS = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch"):
            print(name, os.environ.get("OMP_NUM_THREADS"), file=sys.stderr)
sys.meta_path.insert(0, Finder())
from impala_mp.cli import train
train.main()
"""


def test_threads_are_limited_before_numpy_and_torch_are_imported():
    """Without, each start took a second more: numpy's BLAS had a thread by then."""
    command = [sys.executable, "-c", _WATCHES_IMPORTS, "catch", "--check"]
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    seen = set(done.stderr.split("\n"))
    assert {"numpy 1", "torch 1"} <= seen
    assert not {"numpy None", "torch None"} & seen
