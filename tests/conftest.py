"""Fixtures that tests of several folders share."""

import pytest

from tests.support import runs


@pytest.fixture
def start(tmp_path):
    """Starts trainings in processes, and kills those that a test leaves behind."""
    started = []

    def make(*overrides, name="run", **kwargs):
        started.append(runs.Run(tmp_path / name, *overrides, **kwargs))
        return started[-1]

    yield make
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
