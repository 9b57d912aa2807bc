"""Every part of a run that makes environments closes them."""

import contextlib

import pytest

from impala_mp.evaluation import evaluate, export, player
from impala_mp.runtime import (
    calibration,
    entry_points,
    preflight,
    program,
    resources,
)
from impala_mp.workers import builders as worker_builders
from tests.support import builders, closing_environments

_OWN = "tests.support.closing_environments:Recorded"


@pytest.fixture(autouse=True)
def _fresh():
    closing_environments.clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run, and what it made and closed."""
    closing_environments.clear()
    path = tmp_path_factory.mktemp("runs") / "run"
    program.train(builders.short_training(_OWN), str(path))
    closing_environments.assert_each_closed_once()
    return str(path)


def test_lockstep_and_the_commands(run, tmp_path):
    for use in (
        lambda: evaluate.evaluate(run, 6),
        lambda: evaluate.evaluate(run, 6, video=str(tmp_path / "film.gif")),
        lambda: player.play(run, 1, None, False, 0.0),
        lambda: export.export(run, "torch", str(tmp_path / "policy.pt2")),
    ):
        closing_environments.clear()
        use()
        closing_environments.assert_each_closed_once()


def test_a_failed_lockstep_run(tmp_path):
    config = builders.short_training(_OWN)
    config.environment.kwargs.update({"fault": "no reset", "at": 2})
    with pytest.raises(ValueError, match="no level"):
        program.train(config, str(tmp_path / "run"))
    closing_environments.assert_each_closed_once()


@pytest.mark.parametrize("mode", ["actor", "server"])
def test_check(mode):
    assert preflight.check(
        builders.config(
            **{"environment.id": _OWN, "inference.mode": mode},
            **{"actors.environments": 2},
        ),
        None,
    )
    closing_environments.assert_each_closed_once()


def test_calibration(monkeypatch):
    monkeypatch.setattr(calibration, "_SECS", 0.001)
    settings = builders.environment_settings(_OWN)
    calibration._environment_secs(settings, 3)
    closing_environments.assert_each_closed_once(3)


@pytest.mark.parametrize("role", ["actor", "served actor", "evaluator"])
@pytest.mark.parametrize("fault", ["", "no reset"])
def test_processes(tmp_path, monkeypatch, role, fault):
    monkeypatch.setattr(resources, "take_cores", lambda *unused: None)
    config = builders.config(
        **{"environment.id": _OWN, "actors.environments": 2},
        **{"evaluation.during_training": True, "evaluation.environments": 2},
        **{"inference.mode": "server" if role == "served actor" else "actor"},
    )
    shared = builders.shared(config, tmp_path)
    config.environment.kwargs.update({"fault": fault, "at": 1})
    closing_environments.clear()
    if not fault:
        shared.control.stop()
    seat = shared.topology.of(role.split()[-1])[0]
    worker_builders.make_learner(shared.topology.learner(), shared).publish()
    expected = pytest.raises(ValueError, match="no level")
    with (
        expected if fault else contextlib.nullcontext(),
        contextlib.ExitStack() as at_end,
    ):
        entry_points._ROLES[seat.role](seat, 0, [shared], at_end)
    closing_environments.assert_each_closed_once(2)
