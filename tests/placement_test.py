"""Cores by role, and what is chosen by measurement."""

import os

import pytest

from impala_mp import (
    calibration,
    environments,
    footprint,
    placement,
    validation,
)
from tests import builders


@pytest.mark.parametrize(
    ("cores", "actors", "actor_threads", "learner_threads"),
    [([0, 1], 1, 1, 1), ([4, 5, 6, 7, 9], 2, 1, 2), (list(range(16)), 3, 4, 4)],
)
def test_every_thread_has_a_core_of_its_own(
    cores, actors, actor_threads, learner_threads
):
    plan = placement.plan(cores, actors, actor_threads, learner_threads)
    taken = [*plan.learner, *(c for each in plan.actors for c in each)]
    assert len(taken) == len(set(taken)) == actors * actor_threads + learner_threads
    assert set(taken) <= set(cores)
    assert len(plan.learner) == learner_threads
    assert all(len(each) == actor_threads for each in plan.actors)


def test_too_few_cores_are_shared():
    plan = placement.plan([0, 1], 2, 1, 1)
    assert plan == ((), ((), ()))
    assert "the learner goes first" in plan.explain(1)


def test_the_plan_is_said():
    assert placement.plan([0, 1, 2], 2, 1, 1).explain(1) == (
        "Cores: the learner has core 0, and 2 actors cores 1 to 2."
    )


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
    environment = environments.make(config.environment, 1).spec
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
    environment = environments.make(config.environment, 1).spec
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
    environment = environments.make(config.environment, 1).spec
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
    environment = environments.make(config.environment, 1).spec
    for batch_size, fastest in ((24, 4), (6, 2), (9, 1), (24, 4)):
        config.batch_size, config.learner.micro_batches = batch_size, 0
        tried.clear()
        sentence = calibration.resolve(config, environment, num_cores=2)
        assert f"learner.micro_batches = {fastest}" in sentence
        assert config.learner.micro_batches == fastest
        assert set(tried) == {n for n in seconds if batch_size % n == 0}


def test_a_gpu_leaves_the_cores_to_the_actors():
    config = builders.config(**{"actors.count": 0, "learner.device": "cuda"})
    environment = environments.make(config.environment, 1).spec
    assert "actors.count = 15" in calibration.resolve(config, environment, 16)


def test_memory_is_counted():
    assert 10.0 < footprint.private_mib(os.getpid()) < 10_000.0
    assert footprint.private_mib(2**22 + 1) == 0.0
    text = footprint.explain({"published": 3, "others": 3}, 3 * 2**20, 2**20, 2**19)
    assert "3.0 MiB of trajectory rings" in text
    assert "6 copies of them: 3 published, 3 others." in text


def test_a_replay_that_cannot_be_saved_in_time_is_said():
    size = 3 * 2**30
    assert footprint.explain_replay(0, 0, True, 1.0) == ""
    plain = footprint.explain_replay(5, size, False, 15.0)
    assert plain == "Replay: up to 5 trajectories, in 3,072.0 MiB."
    late = footprint.explain_replay(5, size, True, 15.0)
    assert "may take 30 s" in late
    assert "set config.shutdown.deadline_secs=60" in late
    assert footprint.explain_replay(5, size, True, 60.0) == plain
