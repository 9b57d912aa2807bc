"""A run is tried before it starts: each shortage is found and named."""

import gc
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
from impala_mp.environments import members
from impala_mp.runtime import (
    allocation,
    cluster_check,
    preflight,
    program,
    resources,
)
from tests.support import builders, faulty_environments, rock_paper_scissors

_FILLED = {
    "algorithm": "dqn",
    "replay.reuse": 2.0,
    "replay.start": 1000,
    "evaluation.greedy": True,
    "vtrace.lambda_": 0.95,
}
_EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"


def test_the_report_of_the_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert preflight.check(builders.config(), str(tmp_path / "run"))
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"ok"}
    for word in ("cores", "file descriptors", "memory", "disk", "a batch", "workdir"):
        assert any(line[9:].startswith(word) for line in lines), word
    assert any("6 trajectories of 5 steps learned: loss" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


class PlanesFirst(gymnasium.Env):
    """Pictures with planes first, and actions as wide as their dtype."""

    observation_space = gymnasium.spaces.Box(0, 255, (3, 40, 40), np.uint8)
    action_space = gymnasium.spaces.Box(-3e38, 3e38, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((3, 40, 40), np.uint8), {}

    def step(self, action):
        over = self.np_random.random() < 0.2
        assert np.isfinite(action).all()
        return np.zeros((3, 40, 40), np.uint8), 1.0, bool(over), False, {}


def test_the_report_names_what_happens_to_each_array(capsys):
    config = builders.config(**{"environment.id": f"{__name__}:PlanesFirst"})
    assert preflight.check(config, None), capsys.readouterr().out
    report = capsys.readouterr().out
    assert "a picture of 40x40 with 3 planes, first (otherwise set" in report
    assert "a normal that is not scaled" in report
    assert re.search("warning +actions +.*not all bounds", report)


@pytest.mark.parametrize(
    "overrides",
    [
        {"network.core": "lstm"},
        {"network.core": "gtrxl"},
        {"inference.mode": "server", "actors.environments": 2},
        {"actors.environments": 0, "actors.count": 0, "learner.micro_batches": 0},
        {"runtime.mode": "lockstep"},
        _FILLED,
    ],
    ids=["lstm", "gtrxl", "server", "auto", "lockstep", "filled_replay"],
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
    assert not preflight.check(faulty_environments.config(fault="reward"), None)
    assert _only_failure(capsys).startswith("rewards")


def test_a_shortage_of_memory(capsys):
    config = builders.config(**{"actors.slots": 10**9})
    assert not preflight.check(config, None)
    assert "MiB are available. Lower config.actors.slots" in _only_failure(capsys)


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
    served = {"inference.mode": "server", "actors.environments": 2}
    config = builders.config(**{"inference.device": "cuda:7", **served})
    assert not preflight.check(config, None)
    assert "CUDA devices are visible" in _only_failure(capsys)


@pytest.mark.parametrize("group", ["learner", "inference"])
def test_a_device_without_bfloat16(monkeypatch, capsys, group):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a Pascal")
    monkeypatch.setattr(torch.cuda, "device", lambda device: _Nothing())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: False)
    overrides = {f"{group}.device": "cuda", f"{group}.precision": "bfloat16"}
    if group == "inference":
        overrides |= {"inference.mode": "server", "actors.environments": 2}
    assert not preflight.check(
        faulty_environments.config(fault="reward", **overrides), None
    )
    first, _ = _failures(capsys)
    assert "cuda (a Pascal) does not compute bfloat16. Set" in first
    assert f"Set config.{group}.precision=float32" in " ".join(first.split())


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
        (50, "warning", "Little space is left"),
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
    assert "is not writable" in _only_failure(capsys)


def test_too_many_threads_for_the_cores(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    config = builders.config(**{"actors.count": 4})
    assert preflight.check(config, None)
    out = capsys.readouterr().out
    assert re.search(r"warning  cores .* Set config.actors.count=auto", out)


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
    assert "contains a run" in capsys.readouterr().out
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


@pytest.mark.integration
def test_the_command(tmp_path):
    done = _train(_CATCH, "--check", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a batch" in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_not_valid():
    with pytest.raises(errors.BadInput, match="config.batch_size"):
        preflight.check(builders.config(batch_size=7), None)


@pytest.mark.integration
def test_too_few_file_descriptors(tmp_path):
    many = ("--config.actors.count=60", "--config.batch_size=64")
    done = _train(_CATCH, "--check", *many, limit=128)
    assert done.returncode == 2, done.stdout + done.stderr
    run = tmp_path / "run"
    refused = _train(_CATCH, f"--workdir={run}", *many, limit=128)
    assert refused.returncode == 2
    assert "file descriptors are needed, but 128 are allowed. Raise" in refused.stderr
    assert not run.exists()
    assert re.search(
        r"FAIL +file descriptors +about \d+ file descriptors are needed, but 128",
        done.stdout,
    )


@pytest.mark.parametrize("hosts", [0, 3])
@pytest.mark.parametrize("sharing", ["all", "each"])
def test_the_descriptors_of_memory_and_doorbells_are_counted_exactly(
    tmp_path, hosts, sharing
):
    game = f"{rock_paper_scissors.__name__}:RockPaperScissors"
    own = {"environment.id": game, "environment.sharing": sharing}
    own |= {"actors.environments": 2, "batch_size": 4}
    config = builders.config(**own, **{"actors.count": 5, "cluster.hosts": hosts})
    policies = allocation.without_checks(config, members.probe(config))
    gc.collect()  # what tests before have left closes its descriptors
    before = len(os.listdir("/proc/self/fd"))
    shared = allocation.allocate(policies, str(tmp_path), 2, config)
    held = len(os.listdir("/proc/self/fd")) - before
    allocation.release(shared)
    seats, spare = shared[0].topology, 20

    def needed(children, opened):
        return resources.descriptors_needed(seats, children, opened)

    assert needed(0, 0) == held + spare
    assert needed(6, 10) == held + spare + 2 * 6 + 10


@pytest.mark.slow
def test_the_number_of_file_descriptors_needed_is_tight(tmp_path):
    many = ("--config.actors.count=12", "--config.total_agent_steps=20000")
    report = _train(_CATCH, "--check", *many).stdout
    needed = int(re.search(r"about (\d+) are needed", report).group(1))
    run = (_CATCH, *many, "--config.shutdown.deadline_secs=60")
    done = _train(*run, f"--workdir={tmp_path / 'enough'}", limit=needed + 5)  # about
    assert done.returncode == 0, done.stderr
    done = _train(*run, f"--workdir={tmp_path / 'few'}", limit=needed - 30)
    assert done.returncode != 0


class Noise(gymnasium.Env):
    """Observations that no compression makes smaller."""

    observation_space = gymnasium.spaces.Box(0, 255, (2_000,), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        return self._observe(), 0.0, False, False, {}

    def _observe(self):
        return self.np_random.integers(0, 256, 2_000, np.uint8)


@pytest.mark.parametrize(
    ("compression", "has_noise", "text"),
    [
        ("none", False, r"a slot of a new policy, [\d.]+ kB, is sent as it is\.\n"),
        (
            "auto",
            False,
            r"a slot of a new policy, [\d.]+ kB, .* compression [\d.]+\.\n",
        ),
        ("auto", True, "compression 1.0. Hosts stop compressing after"),
    ],
)
def test_what_a_slot_of_a_host_is_on_the_wire(
    monkeypatch, capsys, compression, has_noise, text
):
    monkeypatch.setattr(cluster_check, "check", lambda *unused: [])
    monkeypatch.setattr(cluster_check, "check_nodes", lambda *unused: [])
    config = builders.config(**{"cluster.hosts": 1, "cluster.address": "auto"})
    config.cluster.compression = compression
    if has_noise:
        config.environment.id = f"{__name__}:Noise"
    assert preflight.check(config, None)
    out = capsys.readouterr().out
    assert re.search(text, out), out


def test_a_change_is_checked_as_a_training_would(tmp_path, capsys):
    path, name = tmp_path / "run", "loss.entropy_cost"
    config = builders.config()
    config.loss.entropy_cost *= 2
    assert not preflight.check(config, str(path), (name,))
    assert "there is no run in" in _only_failure(capsys)
    folder = program.workdir.Workdir(str(path))
    folder.open(builders.config())
    folder.close()
    assert preflight.check(config, str(path), (name,)), capsys.readouterr().out
    assert not preflight.check(config, str(path))


def test_an_evaluation_that_shows_something_else_is_found(capsys):
    config = builders.config()
    config.evaluation.kwargs = {"rows": 7}
    assert not preflight.check(config, None)
    assert "evaluation.kwargs ({'rows': 7}) change what the policy sees" in (
        _only_failure(capsys)
    )
