"""Fixtures that tests of several folders share."""

import os
import pathlib
import signal
import subprocess

import pytest
import torch

import harness
from impala_mp.config import container_limits
from impala_mp.evaluation import conclusion

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CONFIG = _ROOT / "experiments" / "catch.py"


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal():
    """Processes inherit what `nohup` and `&` ignore."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _state_of_user(tmp_path_factory):
    """Trainings record their code there, and not in the home of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_limit_of_a_container():
    """Tests that pretend to have more cores run in a container with fewer, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container_limits, "_GROUPS", os.devnull)
        yield


@pytest.fixture(autouse=True)
def _process_as_it_was():
    """After a test that leaves this process nicer, all others are slow."""
    before = os.nice(0), os.sched_getaffinity(0)
    yield
    assert (os.nice(0), os.sched_getaffinity(0)) == before


@pytest.fixture
def _without_pictures(monkeypatch):
    """Trainings of this process draw no curve and no film, which take them seconds."""
    for name in ("_learning_curve", "_film"):
        monkeypatch.setattr(conclusion, name, lambda *args: "")


@pytest.fixture
def start(tmp_path):
    """Starts trainings in processes, and kills those that a test leaves behind."""
    started = []

    def make(*flags, name="run", config=_CONFIG, **kwargs):
        all_flags = [
            f"--config={config}",
            "--config.logging.interval_secs=0.2",
            "--config.evaluation.film=False",
            *flags,
        ]
        started.append(harness.Training(tmp_path / name, all_flags, **kwargs))
        return started[-1]

    yield make
    for run in started:
        run.kill()


@pytest.fixture
def mount():
    """Mounts small file systems: `mount(folder, options of tmpfs)`."""
    mounted = []

    def make(folder, options):
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "impala_mp", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")


def pytest_collection_modifyitems(items):
    """All of tests/integration starts processes."""
    for item in items:
        if item.path.is_relative_to(_ROOT / "tests" / "integration"):
            item.add_marker("integration")
