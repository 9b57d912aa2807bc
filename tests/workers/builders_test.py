"""What the roles are given: seeds that nobody has had before."""

import contextlib

import numpy as np
import pytest

from impala_mp.runtime import entry_points, program
from impala_mp.workers import builders as worker_builders, evaluator
from tests.support import builders

_ROLES = ("actor", "evaluator", "inference")


class _Enough(Exception):
    pass


@pytest.fixture
def keys(monkeypatch):
    """The keys of all seeds that are asked for."""
    taken, sequence = [], entry_points.seeding.sequence

    def spy(seed, *key):
        taken.append(key)
        if key[0] == "evaluator":
            raise _Enough
        return sequence(seed, *key)

    monkeypatch.setattr(entry_points.seeding, "sequence", spy)
    monkeypatch.setattr(entry_points.resources, "take_cores", lambda *unused: None)
    return taken


def _start_all(tmp_path, incarnation, run):
    """One of each role, in this process, for a moment."""
    config = builders.config(
        **{"replay.ratio": 0.5, "batch_size": 12, "actors.environments": 2},
        **{"evaluation.during_training": True, "inference.mode": "server"},
    )
    shared = builders.shared(config, tmp_path)._replace(run=run)
    for seat in shared.topology.seats:
        shared.row(seat).set("incarnation", incarnation)
    worker_builders.make_learner(shared.topology.learner(), shared)
    worker_builders.make_actor(shared.topology.actors[1], incarnation, [shared])
    shared.store.publish(np.zeros(shared.store.num_bytes, np.uint8))
    for role in _ROLES:
        seat = shared.topology.of(role)[0]
        with contextlib.suppress(_Enough):
            if role == "actor":
                entry_points._act_served(seat, incarnation, [shared])
            else:
                entry_points._ROLES[role](
                    seat, incarnation, [shared], contextlib.ExitStack()
                )
        if role == "evaluator":
            shared.control.stop()  # for the inference server, which ends at once


def test_neither_a_restart_nor_another_run_repeats_a_seed(tmp_path, keys):
    for incarnation, run in ((0, 0), (1, 0), (0, 1), (1, 1)):
        _start_all(tmp_path, incarnation, run)
    games = {key for key in keys if key[0] == "evaluator"}
    assert games == {("evaluator", evaluator.SELECTION)}  # the same, to be compared
    # A learner's parameters are saved.
    drawn = [key for key in keys if key[0] not in ("learner", "evaluator")]
    assert {key[0] for key in drawn} == {"actor", "inference", "replay"}
    assert len(set(drawn)) == len(drawn) == 4 * 4


@pytest.mark.parametrize(
    ("mode", "expected"), [("processes", [0, 1, 2]), ("lockstep", [0, 0, 0])]
)
def test_each_run_in_a_folder_has_its_number(tmp_path, monkeypatch, mode, expected):
    """But lockstep repeats itself, also from the beginning."""
    runs = []

    def run(shared, folder, screen, end):
        runs.append(shared[0].run)
        return False

    monkeypatch.setattr(program, "_run", run)
    for _ in expected:
        config = builders.config(**{"runtime.mode": mode})
        program.train(config, str(tmp_path / "run"))
    assert runs == expected
