"""Trainings with a league: in real processes, killed, stopped and resumed."""

import json
import os
import signal

import numpy as np
import pytest

from impala_mp import errors
from impala_mp.evaluation import evaluate
from impala_mp.storage import metrics, snapshot_file
from impala_mp.workers import game_log
from tests.support import builders, lockstep_runs, runs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_without_pictures")]

_LEAGUE = {
    "environment.id": "Connect",
    "network.torso": "mlp",
    "actors.environments": 4,
    "batch_size": 8,
    "league.every": 500,
    "league.size": 4,
    "evaluation.episodes": 4,
}
_BY_VALUE = {
    "algorithm": "dqn",
    "target.period": 3,
    "vtrace.lambda_": 0.95,
    "replay.reuse": 1.0,
    "replay.start": 8,
    "replay.memory_mib": 4.0,
    "evaluation.greedy": True,
}
_MEMORY = {"network.core": "lstm", "network.last_action": True}


def _files(folder):
    paths = sorted((folder / "league").iterdir())
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    "overrides",
    [_MEMORY, pytest.param(_BY_VALUE, marks=pytest.mark.slow)],
    ids=["vtrace", "dqn"],
)
def test_a_game_is_trained_against_snapshots(tmp_path, overrides):
    fields = {"total_agent_steps": 3_000, "health.drift_interval": 1}
    config = builders.config(**_LEAGUE, **fields, **overrides)
    builders.train_in_processes(config, tmp_path)
    records = metrics.read(str(tmp_path))
    last = records[-1]
    assert last["health/drift_alarms"] == last["health/mixed_unrolls"] == 0
    assert any(record.get("health/drift", np.nan) >= 0.0 for record in records)
    assert last["league/games"] > 10
    assert last["league/size"] == 4
    for player in ("player_0", "player_1"):
        assert f"episode/return_mean/{player}" in last
    table = json.loads((tmp_path / "league.json").read_text())
    counted = [sum(x[k] for k in ("wins", "draws", "losses")) for x in _all(table)]
    assert sum(counted) == last["league/games"]
    assert table["snapshots"][-1]["version"] == last["league/newest"] >= 6
    assert list(_files(tmp_path)) == sorted(
        f"{version}.pt" for version in range(1, int(last["league/newest"]) + 1)
    )


def _all(table):
    return [*table["snapshots"], table["past"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = builders.config(
        **_LEAGUE, **{"runtime.mode": "lockstep", "total_agent_steps": 1_500}
    )
    builders.train_in_processes(config, folder)
    return folder


def test_a_snapshot_is_an_opponent(run):
    found = evaluate.versus(str(run), "snapshot:1", 4)
    assert found["wins"] + found["draws"] + found["losses"] == 4
    assert found["against"] == "snapshot:1"
    same = evaluate.versus(str(run), str(run / "league" / "1.pt"), 4)
    assert {**same, "against": ""} == {**found, "against": ""}


def test_a_snapshot_that_is_not_there_is_refused(run):
    with pytest.raises(errors.BadInput, match=r"no snapshot '99' .* It has 1, 2"):
        evaluate.versus(str(run), "snapshot:99", 2)
    path = run / "league" / "98.pt"
    path.write_bytes(b"x")
    with pytest.raises(errors.BadInput, match=r"98\.pt cannot be read"):
        evaluate.versus(str(run), "snapshot:98", 2)
    path.unlink()


def test_the_parameters_of_a_snapshot_are_those_of_its_moment(tmp_path):
    """The first is the network before any update; a later one differs."""
    config = lockstep_runs.config(
        **_LEAGUE, **{"total_agent_steps": 8 * 7 * 20, "actors.count": 1}
    )
    builders.train_in_processes(config, tmp_path)
    folder = str(tmp_path / "league")
    first, second = (snapshot_file.read(folder, n)["learner"] for n in (1, 2))
    assert (first["updates"], first["agent_steps"]) == (0, 0)
    assert second["agent_steps"] >= 500
    changed = [
        name
        for name, old in first["parameters"].items()
        if (old != second["parameters"][name]).any()
    ]
    assert changed


def test_results_are_a_recount_of_all_slots(tmp_path, monkeypatch):
    add, seen = game_log.GameLog.add, []

    def noted(self, batch, *progress):
        game = batch.episode_end.game
        ended = ~np.isnan(game.result)
        results = game.result[ended].tolist()
        seen.extend(zip(game.opponent[ended].tolist(), results, strict=True))
        returns = batch.episode_end.episode_return[ended]
        # The reward of a win is 1 and of a loss -1.
        assert ((returns + 1.0) / 2.0).tolist() == results
        add(self, batch, *progress)

    monkeypatch.setattr(game_log.GameLog, "add", noted)
    lockstep_runs.train(
        tmp_path, **{**lockstep_runs.VARIANTS["league"], "league.size": 100}
    )
    table = json.loads((tmp_path / "league.json").read_text())
    assert len(seen) > 30
    for each in table["snapshots"]:
        own = [result for version, result in seen if version == each["version"]]
        counts = [own.count(1.0), own.count(0.5), own.count(0.0)]
        assert [each[k] for k in ("wins", "draws", "losses")] == counts
    assert sum(table["past"].values()) == 0


@pytest.mark.slow
def test_killed_actors_and_learners_lose_no_identity(start, tmp_path):
    flags = [f"--config.{name}={value}" for name, value in _LEAGUE.items()]
    run = start(runs.LONG, *flags, "--config.actors.count=2")
    folder = tmp_path / "run"
    files = {}
    for role in ("actor", "learner", "actor", "learner"):
        newest = len(files)
        run.until(lambda n=newest: run.records()[-1].get("league/newest", 0) > n + 2)
        now = _files(folder)
        assert {name: now[name] for name in files} == files
        files = {k: v for k, v in now.items() if k.endswith(".pt")}
        process = run.until_running(role)[0]
        os.kill(process["pid"], signal.SIGKILL)
        run.until(lambda r=role, p=process: run.until_running(r)[0]["pid"] != p["pid"])
    before = run.records()[-1]["updates"]
    run.until(lambda: run.records()[-1]["updates"] > before + 20)
    run.stop()
    last = metrics.read(str(folder))[-1]
    parts = ("learned", "discarded", "in_flight")
    counts = [last[f"health/{part}"] for part in parts]
    assert last["health/committed"] == sum(counts)
    assert last["health/drift"] < 1e-3
    now = _files(folder)
    assert {name: now[name] for name in files} == files
    table = json.loads((folder / "league.json").read_text())
    assert table["snapshots"][0]["version"] == 1
    assert len(table["snapshots"]) == 4


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"inference.mode": "server"}, "needs actors with their own networks"),
        ({"environment.id": "Catch"}, "has a single player"),
        ({"environment.sharing": "each"}, "2 policies do"),
        ({"league.every": 0}, r"league.size \(4\) has no effect without league.every"),
        ({"league.draw": "best"}, "must be one of uniform, hard, even, latest"),
    ],
)
def test_a_league_that_cannot_be_is_refused(tmp_path, overrides, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        builders.train_in_processes(
            builders.config(**{**_LEAGUE, **overrides}), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
