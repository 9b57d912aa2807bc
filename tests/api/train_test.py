"""`im.train` where people call it: scripts, standard input, threads, notebooks."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import gymnasium
import numpy as np
import pytest
import torch

import impala_mp as im
from impala_mp.storage import files

_SMALL = {
    "total_agent_steps": 320,
    "unroll_length": 10,
    "batch_size": 4,
    "actors": {"count": 1, "environments": 4},
    "learner.threads": 1,
    "evaluation": {"episodes": 4, "environments": 2, "film": False},
}
_LOCKSTEP = {**_SMALL, "runtime.mode": "lockstep"}

_SCRIPT = """
import gymnasium as gym
import numpy as np
import impala_mp as im

class Pairs(gym.Env):
    observation_space = gym.spaces.Dict(
        {"a": gym.spaces.Discrete(2), "b": gym.spaces.Box(-1.0, 1.0, (2,), np.float32)}
    )
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 8
        return self.observe(), {}

    def observe(self):
        self.a = int(self.np_random.integers(2))
        return {"a": self.a, "b": np.zeros(2, np.float32)}

    def step(self, action):
        self.left -= 1
        FAULT
        return self.observe(), float(action == self.a), self.left == 0, False, {}

run = im.train(Pairs, SETTINGS)
print("DONE", run.path, run.updates, run.evaluate(episodes=4).episodes, flush=True)
observation, _ = Pairs().reset(seed=0)
action, state = run.policy(observation)
print("ACTION", action in (0, 1), flush=True)
"""


def _script(fault="pass", **settings):
    text = f"**{ {**_SMALL, **settings}!r}"
    return _SCRIPT.replace("FAULT", fault).replace("SETTINGS", text)


@pytest.fixture
def python(tmp_path):
    """Starts Python in `tmp_path`, and kills what a test leaves behind."""
    started = []

    def start(*arguments, **kwargs):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kwargs,
        )
        started.append(process)
        return process

    yield start
    for process in started:  # a training ends with its caller
        process.kill()
        process.communicate()


def _wait(condition, secs=120.0):
    end = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < end, "it has not come to pass"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.integration
def test_a_class_of_standard_input_goes_to_the_processes(tmp_path, python):
    process = python("-")
    said, _ = process.communicate(_script(), timeout=200)
    assert process.returncode == 0, said
    assert "ACTION True" in said
    (folder,) = (tmp_path / "runs").glob("Pairs/*")
    assert f"DONE {folder} 8 4" in said
    # Another process loads it, since this user has trained it here.
    assert im.load(folder).evaluate(episodes=2).episodes == 2


@pytest.mark.integration
def test_a_run_from_elsewhere_executes_nothing_by_itself(tmp_path, python, monkeypatch):
    process = python("-")
    said, _ = process.communicate(_script(**{"runtime.mode": "lockstep"}), timeout=200)
    (folder,) = (tmp_path / "runs").glob("Pairs/*")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    with pytest.raises(im.BadInput, match="trust=True, if both are safe"):
        im.load(folder)
    with pytest.raises(im.BadInput, match="trust=True, if both are safe"):
        im.train(workdir=folder, total_agent_steps=640)
    assert im.train(workdir=folder, total_agent_steps=640, trust=True).updates == 16
    assert im.load(folder, trust=True).policy
    (code,) = (folder / "by_value").iterdir()
    code.write_bytes(code.read_bytes() + b"x")
    sys.modules.pop(code.stem, None)
    with pytest.raises(im.BadInput, match="missing or altered"):
        _ = im.load(folder, trust=True).policy


@pytest.mark.integration
def test_the_users_bug_is_one_sentence(tmp_path, python):
    (tmp_path / "script.py").write_text(_script("raise ValueError('no bread')"))
    process = python("script.py")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    last = said[said.rindex("RunFailed") :]
    assert "every actor has died of the same error" in last
    assert "script.py" in last
    assert "ValueError: no bread" in last
    assert "impala_mp/" not in last


@pytest.mark.integration
def test_ctrl_c_saves_and_returns_the_run(tmp_path, python):
    (tmp_path / "script.py").write_text(_script(total_agent_steps=10**8))
    process = python("script.py", process_group=0)
    # With a record in it: an empty file is there before anything can be saved.
    found = tmp_path.glob
    _wait(lambda: any(p.stat().st_size for p in found("runs/Pairs/*/metrics.jsonl")))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "ACTION True" in said
    (folder,) = tmp_path.glob("runs/Pairs/*")
    assert files.newest_update(str(folder / "checkpoints")) >= 0


@pytest.mark.integration
def test_a_training_ends_with_the_process_that_called_it(tmp_path, python):
    (tmp_path / "script.py").write_text(_script(total_agent_steps=10**8))
    process = python("script.py")
    _wait(lambda: list(tmp_path.glob("runs/Pairs/*/health.json")))
    (folder,) = tmp_path.glob("runs/Pairs/*")
    pids = [
        each["pid"]
        for each in json.loads((folder / "health.json").read_text())["processes"]
    ]
    process.kill()
    process.communicate(timeout=60)
    _wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids if pid))
    assert files.newest_update(str(folder / "checkpoints")) >= 0  # as by SIGTERM


@pytest.mark.integration
def test_a_thread_trains_and_nothing_here_changes(tmp_path):
    def states():
        numbers = (random.getstate(), np.random.get_state()[1].tolist())
        handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
        return (
            *(numbers, torch.get_rng_state().tolist(), torch.get_num_threads()),
            *(handlers, dict(os.environ), os.getcwd()),
        )

    before, runs = states(), []
    thread = threading.Thread(
        target=lambda: runs.append(
            im.train("Catch", workdir=tmp_path / "run", **_LOCKSTEP)
        )
    )
    thread.start()
    thread.join(200)
    (run,) = runs
    run.evaluate(episodes=2)
    run.policy(np.zeros((10, 5), np.float32))
    assert states() == before
    assert run.is_finished
    assert [each["agent_steps"] for each in run.metrics()][-1] == 320
    assert os.path.getsize(run.plot()) > 1000


class _Told(gymnasium.Env):
    """Its constructor leaves its process's variables in a file."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, file):
        with open(file, "a") as opened:
            names = ("MALLOC_TRIM_THRESHOLD_", "OMP_WAIT_POLICY")
            print(json.dumps([os.environ.get(name) for name in names]), file=opened)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}


@pytest.mark.integration
def test_the_settings_of_the_command_reach_all_processes(tmp_path):
    lines = tmp_path / "lines"
    im.train(
        _Told,
        workdir=tmp_path / "run",
        **_SMALL,
        environment={"kwargs.file": str(lines)},
    )
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(found) >= 4
    assert all(each == ["-1", "PASSIVE"] for each in found)


_MISSING = {os: ("memfd_create", "pidfd_open"), signal: ("pidfd_send_signal",)}


@pytest.mark.integration
def test_a_python_that_was_built_with_an_old_c_library_trains(tmp_path, monkeypatch):
    hook = tmp_path / "hook"
    hook.mkdir()
    with open(hook / "sitecustomize.py", "w") as file:
        for module, names in _MISSING.items():
            print(f"import {module.__name__}", file=file)
            for name in names:
                print(f"del {module.__name__}.{name}", file=file)
                monkeypatch.delattr(module, name)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    run = im.train("Catch", workdir=tmp_path / "run", **_SMALL)
    assert run.is_finished


@pytest.mark.integration
def test_a_run_resumes_and_another_starts_from_it(tmp_path):
    first = im.train("Catch", workdir=tmp_path / "a", **_LOCKSTEP)
    again = im.train(
        workdir=tmp_path / "a",
        total_agent_steps=640,
        change={"optimizer.learning_rate": 1e-4},
    )
    assert (first.updates, again.updates) == (8, 16)
    assert '"optimizer.learning_rate"' in (tmp_path / "a/changes.jsonl").read_text()
    assert im.load(tmp_path / "a", checkpoint=8).updates == 8
    other = im.train(
        "Catch", workdir=tmp_path / "b", start_from=f"{first.path}:16", **_LOCKSTEP
    )
    assert json.loads((tmp_path / "b/lineage.json").read_text())["update"] == 16
    assert other.updates == 8
    best = im.load(tmp_path / "a", checkpoint="best")
    assert best.evaluate(5).episodes == 5
    with pytest.raises(
        im.BadInput, match="has no checkpoint 9. It has newest, best, 8"
    ):
        im.load(tmp_path / "a", checkpoint=9)
    with pytest.raises(im.BadInput, match="seed cannot change during a run"):
        im.train(workdir=tmp_path / "a", change={"seed": 3})
    with pytest.raises(im.BadInput, match="is the folder of a run"):
        im.train(str(tmp_path / "a"))


@pytest.mark.integration
def test_a_refusal_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(im.BadInput, match="batch_size"):
        im.train("Catch", **{**_LOCKSTEP, "batch_size": 64, "actors.slots": 1})
    with pytest.raises(im.BadInput, match="no_such_module"):
        im.train("no_such_module:Game-v0", **_LOCKSTEP)
    assert not list(tmp_path.iterdir())


def test_a_config_must_have_the_fields_of_the_base_config(tmp_path):
    config = im.config.get_base_config().unlock()
    config.optimiser = {"lr": 1e-3}
    with pytest.raises(im.BadInput, match="^config: there is no field 'optimiser'"):
        im.train("Acrobot-v1", config=config, workdir=tmp_path / "run")
    config = im.config.get_base_config().unlock()
    del config.optimizer.clip_norm
    with pytest.raises(im.BadInput, match="^config lacks optimizer.clip_norm. Start"):
        im.train("Acrobot-v1", config=config, workdir=tmp_path / "run")
    assert not list(tmp_path.iterdir())
