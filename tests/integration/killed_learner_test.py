"""Real runs whose learner is killed: what it had learned is not lost."""

import os
import random
import re
import signal
import time

import pytest

import harness
from tests.support import runs

# Each update computes long against a write of the state, and is counted as it begins.
_COUNTED = """
import os
import pathlib
import time
import torch
from torch import nn

_PATH = pathlib.Path(f"{os.environ['COUNT']}.{os.getpid()}")


class Counted(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.ReLU())
        self.updates = 0

    def forward(self, observation):
        if torch.is_grad_enabled() and self.training:
            self.updates += 1
            writing = _PATH.with_suffix(".writing")
            writing.write_text(str(self.updates))
            writing.rename(_PATH)
            end = time.thread_time() + 0.1
            while time.thread_time() < end:
                pass
        return self.layers(observation.float())


def factory(observation_spec, config):
    return Counted(50)
"""
_RESUMING = re.compile(
    r"Resuming from update ([\d,]+) in shared memory\. The newest checkpoint is of"
    r" update ([\d,]+)\."
)


def _resumes(run):
    """(update resumed from, update of the newest checkpoint) of each incarnation."""
    text = (run.workdir / "logs" / "learner-0.log").read_text()
    pairs = _RESUMING.findall(text)
    return [tuple(int(each.replace(",", "")) for each in pair) for pair in pairs]


def _start_counted(start, tmp_path, *flags):
    (tmp_path / "counted.py").write_text(_COUNTED)
    return start(
        runs.LONG,
        "--config.network.torso=counted:factory",
        "--config.checkpoint.interval_secs=1000",
        *flags,
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "COUNT": str(tmp_path / "count"),
        },
    )


def _newest(run):
    return run.records()[-1]["updates"]


def _saved(run):
    """The update of a checkpoint that the run writes now."""
    run.until(lambda: _newest(run) > 5)
    run.process.send_signal(signal.SIGUSR1)
    folder = run.workdir / "checkpoints"
    (path,) = run.until(lambda: list(folder.glob("[0-9]*")))
    return int(path.name)


def test_a_killed_learner_loses_one_update_at_most(start, tmp_path):
    run = _start_counted(start, tmp_path)
    base = _saved(run)
    for number in range(2):
        run.until(lambda base=base: _newest(run) > base + 20)
        (learner,) = run.until_running("learner")
        before = run.records()
        os.kill(learner["pid"], signal.SIGKILL)
        assert harness.survivors([learner["pid"]], 10.0) == []
        begun = base if number else 0
        begun += int((tmp_path / f"count.{learner['pid']}").read_text())
        run.until(lambda number=number: len(_resumes(run)) > number)
        base, saved = _resumes(run)[-1]
        assert begun - 1 <= base <= begun
        assert saved < base - 15
        run.until(lambda base=base: _newest(run) > base)
        kept = [r for r in before if r["updates"] < base]
        assert run.records()[: len(kept)] == kept
        assert len(kept) >= len(before) - 1
    runs.stop_and_count(run)


@pytest.mark.slow
def test_a_learner_killed_again_and_again_loses_little(start):
    """Fast updates, of which not each one is written."""
    run = start(runs.LONG, "--config.checkpoint.interval_secs=1000")
    _saved(run)
    rng = random.Random(0)
    for number in range(3):
        newest = _newest(run)
        run.until(lambda newest=newest: _newest(run) > newest + 100)
        time.sleep(rng.uniform(0.0, 0.5))
        (learner,) = run.until_running("learner")
        os.kill(learner["pid"], signal.SIGKILL)
        run.until(lambda number=number: len(_resumes(run)) > number)
    resumed = _resumes(run)
    assert [base for base, _ in resumed] == sorted(base for base, _ in resumed)
    assert len({saved for _, saved in resumed}) == 1
    run.until(lambda: _newest(run) > resumed[-1][0])
    runs.stop_and_count(run)


@pytest.mark.slow
def test_a_run_that_is_killed_resumes_from_the_disk_only(start):
    """Its memory ends with it."""
    flags = (runs.LONG, "--config.checkpoint.interval_secs=1000")
    run = start(*flags)
    saved = _saved(run)
    run.until(lambda: _newest(run) > saved + 100)
    run.process.kill()
    run.process.wait()
    again = start(*flags)
    again.until(lambda: f"Resuming from update {saved:,}, after" in again.text())
    again.until(lambda: again.processes()[0]["pid"] == again.process.pid)
    again.until_running("learner")
    again.until(lambda: _newest(again) > saved)
    assert _resumes(again) == []
    again.process.send_signal(signal.SIGTERM)
    assert again.wait() == 0, again.text()
    assert all(map(harness.identity_holds, again.records()))


pytestmark = pytest.mark.integration
