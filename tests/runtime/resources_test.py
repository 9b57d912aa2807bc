"""Cores by role, and what is chosen by measurement."""

import os

import pytest
import torch

from impala_mp.algorithms import cuda
from impala_mp.config import validation
from impala_mp.environments import factory
from impala_mp.evaluation import diagnosis
from impala_mp.monitoring import reporter
from impala_mp.runtime import (
    calibration,
    entry_points,
    lockstep,
    preflight,
    program,
    resources,
)
from impala_mp.storage import crash_file
from impala_mp.workers import builders as worker_builders, inference_server, learner
from tests.support import builders


class _Stop(Exception):
    """Says that whoever computes on the device is being made."""


def _stop(*unused, **others):
    raise _Stop


@pytest.mark.parametrize(
    ("cores", "actors", "actor_threads", "learner_threads", "server_threads"),
    [
        ([0, 1], 1, 1, 1, 0),
        ([0, 1, 2], 1, 1, 1, 1),
        ([4, 5, 6, 7, 9], 2, 1, 2, 0),
        (list(range(16)), 3, 4, 4, 0),
        (list(range(16)), 3, 3, 4, 3),
    ],
)
def test_every_thread_has_a_core_of_its_own(
    cores, actors, actor_threads, learner_threads, server_threads
):
    threads = (actors, actor_threads, learner_threads, server_threads)
    plan = resources.plan(cores, *threads)
    taken = [*plan.learner, *plan.server, *(c for each in plan.actors for c in each)]
    wanted = actors * actor_threads + learner_threads + server_threads
    assert len(taken) == len(set(taken)) == wanted
    assert set(taken) <= set(cores)
    assert len(plan.learner) == learner_threads
    assert len(plan.server) == server_threads
    assert [len(each) for each in plan.actors] == [actor_threads] * actors


@pytest.mark.parametrize(("actors", "serving"), [(2, 0), (1, 1)])
def test_too_few_cores_are_shared(actors, serving):
    plan = resources.plan([0, 1], actors, 1, 1, serving)
    assert plan == ((), ((),) * actors, ())
    assert "the learner goes first" in resources.explain_cores(plan, 1, serving)


def _explained(cores, actors, actor_threads, learner_threads, server_threads=0):
    plan = resources.plan(cores, actors, actor_threads, learner_threads, server_threads)
    return resources.explain_cores(plan, learner_threads, server_threads)


def test_the_plan_is_said():
    assert _explained([0, 1, 2], 2, 1, 1) == (
        "Cores: the learner has core 0, and 2 actors cores 1 to 2."
    )
    assert _explained([0, 1, 2, 3, 4], 2, 1, 1, 2) == (
        "Cores: the learner has core 0, the inference server cores 1 to 2, and 2"
        " actors cores 3 to 4."
    )
    cores = len(os.sched_getaffinity(0))
    assert _explained([0], 3, 1, 2, 1) == (
        "Cores: 3 actors, 1 inference and 2 learner threads share"
        f" {cores} cores; the learner goes first."
    )


def test_a_run_has_cores_for_its_server(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    overrides = {"inference.mode": "server", "actors.environments": 2}
    config = builders.config(**overrides)
    shared = builders.shared(config, tmp_path)
    assert shared.cores == ((0,), ((2,), (3,)), (1,))
    assert "the inference server core 1" in " ".join(program._resources(shared))
    assert preflight.check(config, None)
    assert "the inference server core 1" in capsys.readouterr().out
    taken = []
    monkeypatch.setattr(resources, "take_cores", taken.append)
    monkeypatch.setattr(inference_server, "InferenceServer", _stop)
    (seat,) = shared.topology.of("inference")
    with pytest.raises(_Stop):
        entry_points._infer(seat, 0, shared)
    assert taken == [(1,)]


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", []), ("cpu:0", []), ("cuda", []), ("cuda:1", [1])]
)
def test_a_process_takes_the_gpu_it_is_given(monkeypatch, device, expected):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    cuda.take_device(device)
    assert taken == expected


def _crash(config):
    parts = [*crash_file.CrashFile._fields]
    text = config.to_json_best_effort()
    known = {"config": text, "threads": torch.get_num_threads()}
    return crash_file.CrashFile(**{**dict.fromkeys(parts), **known})


@pytest.mark.parametrize(
    "role", ["learner", "inference", "lockstep", "check", "replay"]
)
def test_the_gpu_is_taken_before_anything_is_put_there(monkeypatch, tmp_path, role):
    shared = builders.shared(builders.config(), tmp_path)
    for group in (shared.config.learner, shared.config.inference):
        group.device = "cuda:1"
    seat = shared.topology.learner()
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(resources, "take_cores", lambda cores: None)
    for owner, name in (
        (learner, "Learner"),
        (inference_server, "InferenceServer"),
        (worker_builders, "make_learner"),
    ):
        monkeypatch.setattr(owner, name, _stop)
    starts = {
        "learner": lambda: entry_points._learn(seat, 0, shared),
        "inference": lambda: entry_points._infer(seat, 0, shared),
        "lockstep": lambda: lockstep.run(shared, print, print),
        "check": lambda: preflight._update(shared),
        "replay": lambda: diagnosis.Diagnosis(_crash(shared.config)),
    }
    with pytest.raises(_Stop):
        starts[role]()
    assert taken == [1]


@pytest.mark.parametrize(
    ("costs", "cores", "expected"),
    [
        (calibration.Costs(0.3, 0.3, 0.6), 2, (1, 1)),
        (calibration.Costs(0.3, 0.3, 0.2), 2, (2, 1)),
        (calibration.Costs(0.1, 0.1, 0.8), 8, (3, 7)),
        (calibration.Costs(4.0, 1.0, 0.01), 64, (64, 1)),
        (calibration.Costs(0.0, 0.1, 9.0), 1, (1, 1)),
    ],
)
def test_each_side_gets_its_share_of_the_cores(costs, cores, expected):
    assert calibration.choose(costs, cores) == expected


def test_a_calibration_replaces_what_is_automatic(monkeypatch):
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    config = builders.config(**{"actors.count": 0, "learner.micro_batches": 0})
    config.learner.threads = 0
    environment = factory.make(config.environment, 1).spec
    sentence = calibration.resolve(config, environment, num_cores=2)
    assert 1 <= config.actors.count <= 2
    assert config.batch_size % config.learner.micro_batches == 0
    assert f"actors.count = {config.actors.count}" in sentence
    validation.validate(config, 2)
    assert calibration.resolve(config, environment, num_cores=2) == ""


def test_environments_that_cost_least_are_chosen(monkeypatch, tmp_path):
    costs = {1: 1.0, 2: 1.1, 3: 1.2, 4: 1.4, 6: 1.9, 12: 3.9}
    monkeypatch.setattr(
        calibration,
        "_environment_secs",
        lambda config: costs[config.actors.environments],
    )
    monkeypatch.setattr(calibration, "_inference_secs", lambda *unused: 0.0)
    config = builders.config(**{"actors.environments": 0, "batch_size": 12})
    environment = factory.make(config.environment, 1).spec
    stored = builders.config(**{"actors.environments": 4})
    assert "environments = 6" in calibration.resolve(config, environment, 2)
    config.actors.environments = 0
    assert "environments = 4" in calibration.resolve(config, environment, 2, stored)
    config.actors.environments = 0
    config.inference.mode = "server"
    costs[6] = 9.0
    assert "environments = 12" in calibration.resolve(config, environment, 2)


def test_there_are_enough_actors_to_fill_a_batch(monkeypatch):
    monkeypatch.setattr(calibration, "choose", lambda costs, cores: (1, 1))
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    config = builders.config(**{"actors.count": 0, "actors.slots": 1})
    environment = factory.make(config.environment, 1).spec
    calibration.resolve(config, environment, num_cores=2)
    assert config.actors.count == 2


@pytest.mark.parametrize("mode", ["processes", "lockstep"])
def test_the_fastest_cut_is_chosen(monkeypatch, mode):
    seconds = {1: 3.0, 2: 2.0, 4: 1.0, 8: 4.0, 16: 9.0}
    tried = []

    def measured(config, environment):
        tried.append(config.learner.micro_batches)
        return seconds[config.learner.micro_batches]

    monkeypatch.setattr(calibration, "_update_secs", measured)
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    config = builders.config(**{"learner.micro_batches": 0, "runtime.mode": mode})
    environment = factory.make(config.environment, 1).spec
    for batch_size, fastest in ((24, 4), (6, 2), (9, 1), (24, 4)):
        config.batch_size, config.learner.micro_batches = batch_size, 0
        tried.clear()
        sentence = calibration.resolve(config, environment, num_cores=2)
        assert f"learner.micro_batches = {fastest}" in sentence
        assert config.learner.micro_batches == fastest
        assert set(tried) == {n for n in seconds if batch_size % n == 0}


@pytest.mark.parametrize(("threads", "expected"), [(0, 15), (1, 14), (4, 11)])
def test_a_gpu_leaves_the_cores_to_actors_and_server(threads, expected):
    config = builders.config(**{"actors.count": 0, "learner.device": "cuda"})
    if threads:
        config.inference.mode, config.inference.threads = "server", threads
    environment = factory.make(config.environment, 1).spec
    sentence = calibration.resolve(config, environment, 16)
    assert f"actors.count = {expected}" in sentence


def test_a_server_has_cores_and_takes_inference_off_the_actors(monkeypatch):
    costs = calibration.Costs(environment=0.2, inference=9.9, learning=0.2)
    monkeypatch.setattr(calibration, "measure", lambda *unused: costs)
    config = builders.config(**{"actors.count": 0, "inference.mode": "server"})
    config.learner.threads, config.inference.threads = 0, 2
    environment = factory.make(config.environment, 1).spec
    sentence = calibration.resolve(config, environment, 10)
    assert (config.actors.count, config.learner.threads) == (4, 4)
    assert "there are 10 cores, 2 of them for the inference server" in sentence


def test_memory_is_counted():
    assert 10.0 < reporter.private_mib(os.getpid()) < 10_000.0
    assert reporter.private_mib(2**22 + 1) == 0.0
    text = resources.explain_memory(
        {"published": 3, "others": 3}, 3 * 2**20, 2**20, 2**19
    )
    assert "3.0 MiB of trajectory rings" in text
    assert "6 copies: 3 published, 3 others." in text


def test_a_replay_that_cannot_be_saved_in_time_is_said():
    size = 3 * 2**30
    assert resources.explain_replay(0, 0, True, 1.0) == ""
    plain = resources.explain_replay(5, size, False, 15.0)
    assert plain == "Replay: up to 5 trajectories, in 3,072.0 MiB."
    late = resources.explain_replay(5, size, True, 15.0)
    assert "may take 30 s" in late
    assert "Set config.shutdown.deadline_secs=60" in late
    assert resources.explain_replay(5, size, True, 60.0) == plain
