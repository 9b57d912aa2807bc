"""Each process takes its cores and its GPU before anything else."""

import contextlib
import os
import random

import numpy as np
import pytest
import torch

from impala_mp import seeding
from impala_mp.evaluation import diagnosis, saved_run
from impala_mp.runtime import entry_points, lockstep, preflight, program, resources
from impala_mp.storage import crash_file
from impala_mp.workers import builders as worker_builders, inference_server, learner
from tests.support import builders


class _Stop(Exception):
    """Says that whoever computes on the device is being made."""


def _stop(*unused, **others):
    raise _Stop


def test_a_run_has_cores_for_its_server(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    overrides = {"inference.mode": "server", "actors.environments": 2}
    config = builders.config(**overrides)
    shared = builders.shared(config, tmp_path, range(4))
    assert shared.cores == (((0,),), ((2,), (3,)), (1,))
    described = program._described([shared])
    assert "the inference server core 1" in " ".join(described)
    assert preflight.check(config, None)
    assert "the inference server core 1" in capsys.readouterr().out
    taken = []
    monkeypatch.setattr(resources, "take_cores", taken.append)
    monkeypatch.setattr(inference_server, "InferenceServer", _stop)
    (seat,) = shared.topology.of("inference")
    with pytest.raises(_Stop):
        entry_points._infer(seat, 0, [shared], contextlib.ExitStack())
    assert taken == [(1,)]


def _crash(config):
    parts = [*crash_file.CrashFile._fields]
    text = config.to_json_best_effort()
    known = {"config": text, "threads": torch.get_num_threads(), "policy": ""}
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
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(resources, "take_cores", lambda cores: None)
    for owner, name in (
        (learner, "Learner"),
        (inference_server, "InferenceServer"),
        (worker_builders, "make_learner"),
    ):
        monkeypatch.setattr(owner, name, _stop)
    starts = {
        "learner": lambda: entry_points._learn(
            seat, 0, [shared], contextlib.ExitStack()
        ),
        "inference": lambda: entry_points._infer(
            seat, 0, [shared], contextlib.ExitStack()
        ),
        "lockstep": lambda: lockstep.run([shared], print, print),
        "check": lambda: preflight._update([shared]),
        "replay": lambda: diagnosis.Diagnosis(_crash(shared.config)),
    }
    with pytest.raises(_Stop):
        starts[role]()
    assert taken == [1]


def test_each_incarnation_draws_other_global_numbers(monkeypatch, tmp_path):
    shared = builders.shared(builders.config(), tmp_path)
    drawn = []

    def draw(seat, incarnation, shared, at_end):
        drawn.append((random.random(), np.random.random(), torch.rand(()).item()))

    monkeypatch.setattr(entry_points, "_settle", _nothing)
    monkeypatch.setattr(entry_points.process_end, "leave", _nothing)
    monkeypatch.setattr(
        entry_points, "_ROLES", dict.fromkeys(entry_points._ROLES, draw)
    )
    before = seeding.global_state()
    starts = [
        (seat, incarnation, run)
        for seat in [*shared.topology.actors, shared.topology.learner()]
        for incarnation in (0, 1)
        for run in (0, 1)
    ]
    for seat, incarnation, run in [*starts, starts[0]]:
        seeding.set_global_state(before)  # as a child inherits it
        entry_points.main(seat, incarnation, "", [shared._replace(run=run)], None)
    assert len({number for each in drawn for number in each}) == 3 * len(starts)
    assert drawn[-1] == drawn[0]
    seeding.set_global_state(before)


def _nothing(*unused):
    pass


def test_evaluations_of_a_run_draw_the_same_global_numbers(tmp_path):
    config = builders.short_training("tests.support.counting:Gambler-v0")
    config.total_agent_steps = 60
    program.train(config, str(tmp_path))
    first = []
    for _ in range(2):
        run = saved_run.SavedRun(str(tmp_path))
        first.append(run.environment(2).reset([0, 1]).observation.tolist())
        random.random(), np.random.random(), torch.rand(())
    assert first[0] == first[1]
