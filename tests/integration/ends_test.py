"""Real runs of environments that start programs, and leave things behind."""

import os

import pytest

import harness

_CARELESS = """
import atexit
import os
import subprocess
import sys
import threading
import time
import gymnasium
import numpy as np


def note(word, pid):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{word} {pid}\\n")


class Careless(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.simulator = subprocess.Popen(["sleep", "600"])
        note("made", self.simulator.pid)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, self.steps == 5, False, {}

    def close(self):
        self.simulator.kill()
        self.simulator.wait()
        note("closed", self.simulator.pid)
        raise ValueError("the window is gone")


threading.Thread(target=time.sleep, args=(600,)).start()
atexit.register(time.sleep, 600)
"""


def test_each_simulator_ends_and_nothing_keeps_the_run_alive(start, tmp_path):
    (tmp_path / "careless.py").write_text(_CARELESS)
    notes = tmp_path / "notes"
    run = start(
        "--config.total_agent_steps=4000",
        "--config.environment.id=careless:Careless",
        "--config.evaluation.interval_steps=2000",
        "--config.evaluation.episodes=10",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "NOTES": str(notes),
        },
    )
    assert run.wait() == 0, run.text()
    words = [line.split() for line in notes.read_text().splitlines()]
    made = sorted(pid for word, pid in words if word == "made")
    closed = sorted(pid for word, pid in words if word == "closed")
    assert made == closed
    assert harness.survivors(map(int, made), 1.0) == []
    assert run.text().count("close() of Careless failed: ValueError") == 1
    assert "The process ends without it." in run.text()
    assert "Final evaluation: mean return 5.000" in run.text()
    assert "was killed" not in run.text()
    assert "is killed" not in run.text()


_PARALLEL = """
import os
import gymnasium


def make(num_envs, context):
    made = gymnasium.vector.AsyncVectorEnv(
        [lambda: gymnasium.make("CartPole-v1")] * num_envs, context=context
    )
    with open(os.environ["NOTES"], "a") as file:
        file.writelines(f"{each.pid}\\n" for each in made.processes)
    return made
"""


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_processes_of_an_environment_end_in_order(start, tmp_path, context):
    (tmp_path / "parallel.py").write_text(_PARALLEL)
    notes = tmp_path / "notes"
    run = start(
        "--config.total_agent_steps=3000",
        "--config.environment.id=parallel:make",
        f"--config.environment.kwargs.context={context}",
        "--config.actors.count=1",
        "--config.actors.environments=2",
        "--config.batch_size=4",
        "--config.evaluation.interval_steps=2000",
        "--config.evaluation.episodes=2",
        "--config.evaluation.environments=1",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "NOTES": str(notes),
        },
    )
    assert run.wait() == 0, run.text()
    made = [int(line) for line in notes.read_text().splitlines()]
    assert len(made) > 4  # probe, actor, evaluator, final evaluation
    assert harness.survivors(made, 1.0) == []
    logs = "".join(p.read_text() for p in (run.workdir / "logs").iterdir())
    for text in (run.text(), logs):
        assert "leaked" not in text
        assert "killed" not in text
        assert "Traceback" not in text
