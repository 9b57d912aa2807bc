"""A healthy environment passes; each rule is broken by an environment made for it."""

import os
import pathlib
import re
import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest
import torch

from impala_mp import errors
from impala_mp.environments import catch, checker
from impala_mp.runtime import allocation, preflight, program, resources
from tests.support import builders

_EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"


class Faulty(gymnasium.Env):
    """Episodes of 5 steps, and one fault at most."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2, start=3)

    def __init__(self, fault=""):
        self._fault = fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        if self._fault == "reset raises":
            raise ValueError("no level to start")
        if self._fault == "old reset":
            return self._observation()
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self._time += 1
        if self._fault == "step raises" and self._time == 3:
            raise ValueError("no level to go on with")
        if self._fault == "numpy raises":
            np.stack([])
        if self._fault == "late":
            return self._observation(), 1.0, self._time == 400, False, {}
        over = self._time == 5 and self._fault != "endless"
        reward = float(self.np_random.normal())
        if self._fault == "reward" and self._time == 4:
            reward = float("nan")
        if self._fault == "old step":
            return self._observation(), reward, over, {}
        return self._observation(), reward, over, False, {}

    def _observation(self):
        if self._fault == "unseeded":
            return np.random.uniform(-1.0, 1.0, 2).astype(np.float32)
        observation = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        if self._fault == "shape" and self._time == 2:
            return observation[:1]
        if self._fault == "float64":
            return observation.astype(np.float64)
        if self._fault == "complex":
            return observation.astype(np.complex64)
        if self._fault == "outside":
            return observation * 3.0
        if self._fault == "not finite" and self._time == 2:
            observation[0] = np.inf
        return observation


class FaultyVector(catch.CatchVectorEnv):
    """A vector environment of its own, with one fault at most."""

    def __init__(self, num_envs, render_mode=None, fault=""):
        super().__init__(num_envs, render_mode=render_mode)
        self._fault, self._over = fault, np.zeros(num_envs, bool)

    def step(self, actions):
        over = self._over
        result = list(super().step(actions))
        self._over = result[2] | result[3]
        if self._fault == "reward after the end":
            result[1] = np.where(over, 1.0, result[1])
        if self._fault == "end after the end":
            result[2] = result[2] | over
        if self._fault == "action after the end":
            result[0] = result[0].copy()
            result[0][over, 0, 0] = actions[over]
        if self._fault == "int ends":
            result[2] = result[2].astype(int)
        if self._fault == "float ends":
            result[3] = result[3].astype(np.float32)
        if self._fault == "reward shape":
            result[1] = result[1][:, None]
        if self._fault == "float64":
            result[0] = result[0].astype(np.float64)
        return tuple(result)


class NoNextStep(catch.CatchVectorEnv):
    """Says of itself that it resets in the step that ends."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}


gymnasium.register("Faulty-v0", Faulty)
gymnasium.register("FaultyVector-v0", vector_entry_point=FaultyVector)
gymnasium.register("NoNextStep-v0", vector_entry_point=NoNextStep)


def _config(name="Faulty", fault="", **overrides):
    made = builders.config(**overrides)
    made.environment.id = f"{name}-v0"
    made.environment.kwargs.fault = fault
    return made


def _check(config):
    return {finding.subject: finding for finding in checker.check(config)}


_SUBJECTS = {
    "actions",
    "observations",
    "rewards",
    "episodes",
    "speed",
    "determinism",
    "autoreset",
}


@pytest.mark.parametrize(
    "config",
    [
        _config(),
        _config("FaultyVector"),
        _config(**{"actors.environments": 1, "batch_size": 1}),
        builders.config(**{"environment.id": "CartPole-v1"}),
        builders.config(**{"environment.id": "Recall"}),
    ],
    ids=["single", "vector", "one", "CartPole", "Recall"],
)
def test_nothing_is_found_in_a_healthy_environment(config):
    found = _check(config)
    assert found.keys() == _SUBJECTS
    assert {f.verdict for f in found.values()} == {checker.OK}, found


@pytest.mark.parametrize(
    ("fault", "subject", "verdict", "words"),
    [
        ("reset raises", "environment", "FAIL", "ValueError: no level to start ("),
        ("step raises", "environment", "FAIL", "ValueError: no level to go on with ("),
        ("old reset", "environment", "FAIL", "reset() returns a ndarray"),
        ("old step", "environment", "FAIL", "step() returns 4 values"),
        ("shape", "environment", "FAIL", "has shape [1]. By observation_space"),
        ("complex", "environment", "FAIL", "is complex64. By observation_space"),
        ("not finite", "observations", "FAIL", "values are not finite"),
        ("float64", "observations", "warning", "are float64 and are cast"),
        ("outside", "observations", "warning", "are outside observation_space"),
        ("reward", "rewards", "FAIL", "are not finite"),
        ("endless", "episodes", "warning", "none ended in"),
        ("unseeded", "determinism", "warning", "in the observation of copy 0 after"),
    ],
)
def test_faults_of_single_copies_are_found(fault, subject, verdict, words):
    found = _check(_config(fault=fault))
    assert found[subject].verdict == verdict
    assert words in found[subject].text
    others = {f.verdict for s, f in found.items() if s not in (subject, "autoreset")}
    assert others <= {checker.OK}, found


@pytest.mark.parametrize(
    ("fault", "subject", "words"),
    [
        ("reward after the end", "autoreset", "but has reward 1"),
        ("end after the end", "autoreset", "but is another end"),
        ("action after the end", "autoreset", "makes a difference in the observation"),
        (
            "int ends",
            "environment",
            "terminated is int64. It must be bool. Return terminated.astype",
        ),
        ("float ends", "environment", "truncated is float32. It must be bool"),
        ("reward shape", "environment", "the reward of 2 copies has shape [2, 1]"),
        ("float64", "environment", "is float64. By observation_space"),
    ],
)
def test_faults_of_vector_environments_are_found(fault, subject, words):
    found = _check(_config("FaultyVector", fault))
    assert found[subject].verdict == checker.FAIL
    assert words in found[subject].text


def test_an_episode_that_ends_late_is_waited_for_and_its_reset_seen():
    found = _check(_config(fault="late"))
    assert "2 ended in 802 random steps" in found["episodes"].text
    assert found["autoreset"].verdict == checker.OK


def test_without_an_episodes_end_its_autoreset_is_not_seen():
    found = _check(_config(fault="endless"))
    assert found["autoreset"].verdict == checker.WARNING
    assert "not seen" in found["autoreset"].text


def test_another_autoreset_mode_and_another_space_are_failures():
    found = _check(builders.config(**{"environment.id": "NoNextStep-v0"}))
    assert "AutoresetMode.NEXT_STEP" in found["environment"].text
    assert "BadInput" not in found["environment"].text
    wordy = "tests.environments.vector_test:Wordy-v0"
    found = _check(builders.config(**{"environment.id": wordy}))
    assert "observation space" in found["environment"].text
    assert found["environment"].verdict == checker.FAIL


def test_what_raises_is_named_by_the_users_own_line():
    text = _check(_config(fault="numpy raises"))["environment"].text
    path, line = re.search(r"\((.*):(\d+), in step\)$", text).groups()
    source = pathlib.Path(path).read_text().splitlines()[int(line) - 1]
    assert "np.stack([])" in source


def test_the_report_of_the_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert preflight.check(builders.config(), str(tmp_path / "run"))
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"ok"}
    for word in ("cores", "file descriptors", "memory", "disk", "a batch", "workdir"):
        assert any(line[9:].startswith(word) for line in lines), word
    assert any("6 trajectories of 5 steps learned: loss" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "overrides",
    [
        {"network.core": "lstm"},
        {"network.core": "gtrxl"},
        {"inference.mode": "server", "actors.environments": 2},
        {"actors.environments": 0, "actors.count": 0, "learner.micro_batches": 0},
        {"runtime.mode": "lockstep"},
    ],
    ids=["lstm", "gtrxl", "server", "auto", "lockstep"],
)
def test_a_batch_of_every_kind_is_learned(overrides, monkeypatch, capsys):
    monkeypatch.setattr("impala_mp.runtime.calibration._SECS", 0.001)
    assert preflight.check(builders.config(**overrides), None), capsys.readouterr().out


def _failures(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [line[9:] for line in lines if line.startswith("FAIL")]


def _only_failure(capsys):
    (failure,) = _failures(capsys)
    return failure


def test_a_faulty_environment_ends_the_report(capsys):
    assert not preflight.check(_config(fault="reward"), None)
    assert _only_failure(capsys).startswith("rewards")


def test_a_shortage_of_memory(capsys):
    config = builders.config(**{"actors.slots": 10**9})
    assert not preflight.check(config, None)
    assert "MiB are available: lower config.actors.slots" in _only_failure(capsys)


@pytest.mark.parametrize(
    "fields",
    [
        {"network.hidden_sizes": (10**6, 10**6)},  # more than can be addressed
        {"network.hidden_sizes": (2 * 10**5,) * 2},  # more than is there
        {"network.core": "lstm", "network.core_size": 2 * 10**5, "actors.count": 0},
    ],
)
def test_a_network_too_large_for_the_memory(fields, monkeypatch, capsys):
    monkeypatch.setattr(
        "impala_mp.transport.shared_memory.available_bytes", lambda: 2**33
    )
    assert not preflight.check(builders.config(**fields), None)
    failure = _only_failure(capsys)
    assert failure.startswith("network")
    assert "MiB of memory to be made, and" in failure


def test_a_device_that_is_not_there(capsys):
    config = builders.config(**{"inference.device": "cuda:7"})
    assert not preflight.check(config, None)
    assert "CUDA devices are visible" in _only_failure(capsys)


def test_a_device_without_bfloat16(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a Pascal")
    monkeypatch.setattr(torch.cuda, "device", lambda device: _Nothing())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: False)
    overrides = {"learner.device": "cuda", "learner.precision": "bfloat16"}
    assert not preflight.check(_config(fault="reward", **overrides), None)
    first, _ = _failures(capsys)
    assert "cuda (a Pascal) computes no bfloat16: set" in first


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *unused):
        return None


def _statvfs(free_mib):
    return lambda path: types.SimpleNamespace(f_bavail=free_mib * 256, f_frsize=4096)


def test_a_disk_that_is_too_small(tmp_path, monkeypatch, capsys):
    config = builders.config(**{"network.hidden_sizes": (512, 512)})  # 4 x 3 MiB
    for free, verdict, words in (
        (3, "FAIL", "Choose another --workdir, or lower"),
        (50, "warning", "Little is left"),
        (200, "ok", "200 MiB are free"),
    ):
        monkeypatch.setattr(os, "statvfs", _statvfs(free))
        passed = preflight.check(config, str(tmp_path / "new" / "run"))
        assert passed == (verdict != "FAIL")
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if line[9:].startswith("disk")]
        assert line.startswith(verdict)
        assert words in line


def test_a_saved_replay_needs_its_place_on_the_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "statvfs", _statvfs(150))
    overrides = {"replay.ratio": 0.5, "replay.memory_mib": 50.0}
    overrides |= {"checkpoint.keep_last": 3}
    for saved in (False, True):
        config = builders.config(**overrides, **{"replay.save": saved})
        assert preflight.check(config, str(tmp_path / "run")) != saved
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if line[9:].startswith("disk")]
        assert line.startswith("FAIL" if saved else "ok")
        assert ("4 checkpoints of 50." in line) == saved


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not preflight.check(builders.config(), str(tmp_path / "run"))
    assert "cannot be written to" in _only_failure(capsys)


def test_too_many_threads_for_the_cores(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    config = builders.config(**{"actors.count": 4})
    assert preflight.check(config, None)
    out = capsys.readouterr().out
    assert re.search(r"warning  cores .* set config.actors.count=auto", out)


def test_a_folder_of_another_run_and_one_in_use(tmp_path, capsys):
    path = tmp_path / "run"
    folder = program.workdir.Workdir(str(path))
    config = builders.config()
    folder.open(config)
    assert not preflight.check(config, str(path))
    assert "in use by a live run" in _only_failure(capsys)
    folder.close()
    before = sorted(path.rglob("*"))
    assert preflight.check(config, str(path))
    assert "a run lies there" in capsys.readouterr().out
    config.unroll_length = 6
    assert not preflight.check(config, str(path))
    assert "belongs to another config" in _only_failure(capsys)
    assert sorted(path.rglob("*")) == before


class _Explosive(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(50, 4)

    def forward(self, observation):
        return self.layer(observation.float().flatten(1)) * float("inf")


def explosive(observation_spec, config):
    return _Explosive()


def raising(observation_spec, config):
    raise KeyError("no such layer")


def test_a_network_whose_update_is_not_finite(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = builders.config(**{"network.torso": f"{__name__}:explosive"})
    assert not preflight.check(config, None)
    assert "a batch" in _only_failure(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_raises(capsys):
    config = builders.config(**{"network.torso": f"{__name__}:raising"})
    assert not preflight.check(config, None)
    failure = _only_failure(capsys)
    assert "KeyError: 'no such layer' (" in failure
    assert "preflight_test.py:" in failure


_CATCH = f"--config={_EXPERIMENTS / 'catch.py'}"


def _train(*arguments, limit=None):
    command = [sys.executable, "-m", "impala_mp.cli.train", *arguments]
    if limit:
        command = ["prlimit", f"--nofile={limit}:{limit}", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command(tmp_path):
    done = _train(_CATCH, "--check", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a batch" in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_not_valid():
    with pytest.raises(errors.BadInput, match="config.batch_size"):
        preflight.check(builders.config(batch_size=7), None)


def test_too_few_file_descriptors(tmp_path):
    many = ("--config.actors.count=60", "--config.batch_size=64")
    done = _train(_CATCH, "--check", *many, limit=128)
    assert done.returncode == 2, done.stdout + done.stderr
    run = tmp_path / "run"
    refused = _train(_CATCH, f"--workdir={run}", *many, limit=128)
    assert refused.returncode == 2
    assert "file descriptors are needed, and 128 allowed: raise" in refused.stderr
    assert not run.exists()
    assert re.search(
        r"FAIL +file descriptors +about \d+ file descriptors are needed, and 128",
        done.stdout,
    )


def test_the_descriptors_of_memory_and_doorbells_are_counted_exactly(tmp_path):
    config = builders.config(**{"actors.count": 5})
    before = len(os.listdir("/proc/self/fd"))
    shared = builders.shared(config, tmp_path)
    held = len(os.listdir("/proc/self/fd")) - before
    allocation.release(shared)
    spare = 20
    assert resources.descriptors_needed(5, 0, 0) == held + spare
    assert resources.descriptors_needed(5, 6, 10) == held + spare + 2 * 6 + 10


@pytest.mark.slow
def test_what_a_run_needs_of_file_descriptors_is_enough_and_not_too_much(tmp_path):
    many = ("--config.actors.count=12", "--config.total_agent_steps=20000")
    report = _train(_CATCH, "--check", *many).stdout
    needed = int(re.search(r"about (\d+) are needed", report).group(1))
    run = (_CATCH, *many, "--config.shutdown.deadline_secs=60")
    done = _train(*run, f"--workdir={tmp_path / 'enough'}", limit=needed)
    assert done.returncode == 0, done.stderr
    done = _train(*run, f"--workdir={tmp_path / 'few'}", limit=needed - 30)
    assert done.returncode != 0
