"""The learner's side of a league: snapshots, results, and what a resume finds."""

import errno
import json

import numpy as np
import pytest
import torch

from impala_mp import errors, types
from impala_mp.config import league as rules
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.storage import snapshot_file
from impala_mp.transport import league_memory
from impala_mp.workers import league, learner
from tests.support import builders

NONE = np.full((2, 3), np.nan, np.float32)


def _config(**overrides):
    fields = {"environment.id": "Connect", "league.every": 100, "league.size": 4}
    return builders.config(**{**fields, **overrides})


def _learner(config):
    spec = factory.probe(config.environment)
    return learner.Learner(config, agent.make(config, spec))


def _make(folder, memory=None, the_learner=None, **overrides):
    config = _config(**overrides)
    the_learner = the_learner or _learner(config)
    size = config.league.size
    num_bytes = the_learner.parameters.flat.nbytes
    memory = memory or league_memory.LeagueMemory(size, num_bytes)
    return league.League(config.league, str(folder), memory, the_learner)


def _game(*results):
    """One batch whose games have (version, result)."""
    opponent, result = np.zeros((2, 3), np.int64), NONE.copy()
    for place, (version, value) in enumerate(results):
        opponent.flat[place], result.flat[place] = version, value
    return types.LeagueGame(np.zeros((2, 3), np.int32), opponent, result)


def _change(made, value):
    with torch.no_grad():
        for parameter in made._learner.agent.network.parameters():
            parameter.fill_(value)


def _bytes(folder):
    paths = sorted((folder / "league").iterdir())
    return {path.name: path.read_bytes() for path in paths}


def _versions(made):
    return [record.version for record in made._records]


def _in_memory(made):
    memory, into = made._memory, np.empty(made._memory.num_bytes, np.uint8)
    found = {}
    for entry in memory.entries():
        assert memory.read(entry, into)
        found[entry.version] = into.copy()
    return found


def test_the_first_snapshot_is_taken_at_once_and_then_every_so_many_steps(tmp_path):
    made = _make(tmp_path)
    made.restore({})
    for steps in range(0, 501, 50):
        made.add(_game(), steps)
    assert [record.agent_steps for record in made._records] == [0, 200, 400, 500]
    assert snapshot_file.versions(str(tmp_path / "league")) == [1, 2, 3, 4, 5, 6]


def test_a_snapshot_never_changes(tmp_path):
    made = _make(tmp_path)
    made.restore({})
    files, frozen = {}, {}
    for step in range(1, 12):
        _change(made, step)
        made.add(_game(), 100 * step)
        now = _bytes(tmp_path)
        assert {name: now[name] for name in files} == files
        files = now
        for version, data in _in_memory(made).items():
            frozen.setdefault(version, data)
            np.testing.assert_array_equal(frozen[version], data)
            if version > 1:
                assert (data.view(np.float32)[:10] == version - 1).all()
    assert list(_in_memory(made)) == _versions(made)
    assert _versions(made)[0] == 1
    with pytest.raises(FileExistsError, match="is a snapshot already"):
        snapshot_file.write(str(tmp_path / "league"), 3, {})


def test_results_are_counted_also_of_snapshots_that_have_left(tmp_path):
    made = _make(tmp_path)
    made.restore({})
    made.add(_game((1, 1.0), (1, 0.0), (1, 0.5), (1, 1.0)), 10)
    (first,) = made._records
    assert (first.wins, first.draws, first.losses) == (2, 1, 1)
    made.add(_game((77, 1.0), (77, 0.5)), 20)
    assert made._past == [1, 1, 0]
    for step in range(1, 9):
        made.add(_game((step, 0.0)), 100 * step)
    games = sum(made._past) + sum(record.games for record in made._records)
    assert games == made.metrics()["league/games"] == 4 + 2 + 8
    made.flush()
    table = json.loads((tmp_path / "league.json").read_text())
    assert [x["version"] for x in table["snapshots"]] == _versions(made)
    assert sum(table["past"].values()) == sum(made._past)
    assert set(made.metrics()) == set(league.METRICS)


def test_weights_follow_the_results(tmp_path):
    made = _make(tmp_path, **{"league.draw": "hard"})
    made.restore({})
    made.add(_game(), 100)
    for _ in range(30):
        made.add(_game((1, 1.0), (2, 0.0)), 110)
    old, new = (entry.weight for entry in made._memory.entries())
    assert old < 0.01
    assert new > 0.99
    assert made.metrics()["league/win_rate_oldest"] > 0.8
    assert made.metrics()["league/win_rate_newest"] < 0.2


def test_a_threshold_takes_a_snapshot_early(tmp_path):
    made = _make(tmp_path, **{"league.threshold": 0.7})
    made.restore({})
    for game in range(rules.MIN_GAMES):
        assert _versions(made) == [1], game
        made.add(_game((1, 1.0)), 1)
    assert _versions(made) == [1, 2]
    assert made._next_steps == 101


def test_a_resume_continues_with_all_snapshots(tmp_path):
    made = _make(tmp_path)
    made.restore({})
    for step in range(1, 8):
        _change(made, step)
        made.add(_game((step, 1.0)), 100 * step)
    state = json.loads(json.dumps(made.state_dict()))
    again = _make(tmp_path)
    again.restore(state)
    assert again.state_dict() == made.state_dict()
    expected = _in_memory(made)
    assert list(_in_memory(again)) == list(expected)
    for version, data in _in_memory(again).items():
        np.testing.assert_array_equal(data, expected[version])
    weights = [[entry.weight for entry in x._memory.entries()] for x in (made, again)]
    assert weights[0] == weights[1]
    again.add(_game(), 800)
    assert _versions(again)[-1] == 9


@pytest.mark.parametrize("kept", [True, False])
def test_a_learner_that_was_killed_keeps_later_snapshots(tmp_path, kept):
    """Its state is older than its files, and than the memory if it still exists."""
    made = _make(tmp_path)
    made.restore({})
    made.add(_game((1, 1.0)), 100)
    state = made.state_dict()
    for step in range(2, 7):
        _change(made, step)
        made.add(_game(), 100 * step)
    before = _bytes(tmp_path)
    again = _make(tmp_path, made._memory if kept else None)
    again.restore(state)
    assert _versions(again) == _versions(made)
    assert again._records[0].wins == 1
    assert list(_in_memory(again)) == _versions(made)
    again.add(_game(), 700)
    assert _versions(again)[-1] == 8
    now = _bytes(tmp_path)
    assert {name: now[name] for name in before} == before


def test_the_size_may_change_on_a_resume(tmp_path):
    made = _make(tmp_path)
    made.restore({})
    for step in range(1, 6):
        made.add(_game(), 100 * step)
    for size in (2, 6):
        again = _make(tmp_path, **{"league.size": size})
        again.restore(made.state_dict())
        assert len(again._records) == len(_in_memory(again)) == min(size, 4)
        assert again._records[-1].version == made._records[-1].version


def test_a_damaged_file_is_left_out(tmp_path, capsys):
    made = _make(tmp_path)
    made.restore({})
    made.add(_game(), 100)
    path = tmp_path / "league" / "2.pt"
    path.write_bytes(path.read_bytes()[:100])
    again = _make(tmp_path)
    again.restore(made.state_dict())
    assert _versions(again) == [1]
    assert "2.pt cannot be read" in capsys.readouterr().out
    again.add(_game(), 200)
    assert _versions(again) == [1, 3]


def test_a_full_disk_costs_a_snapshot_and_nothing_else(tmp_path, capsys, monkeypatch):
    made = _make(tmp_path)
    made.restore({})

    def full(*unused, **others):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(snapshot_file.checkpoint, "write_state", full)
        made.add(_game((1, 1.0)), 100)
        made.flush()
    assert "No space left" in capsys.readouterr().out
    assert _versions(made) == list(_in_memory(made)) == [1]
    made.add(_game(), 150)
    made.add(_game(), 200)
    assert _versions(made) == [1, 2]


def test_a_snapshot_is_there_although_its_folder_was_not_synced(tmp_path, monkeypatch):
    made = _make(tmp_path)
    made.restore({})

    def fail(*unused):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(snapshot_file.files, "fsync_folder", fail)
    for step in (100, 200):
        made.add(_game(), step)
    assert _versions(made) == [1, 2, 3]


def test_without_a_first_snapshot_the_run_fails(tmp_path):
    (tmp_path / "league").write_text("a file in place of the folder")
    made = _make(tmp_path)
    with pytest.raises(errors.RunFailed, match="first snapshot of the league cannot"):
        made.restore({})


def test_elo_of_snapshots_rises_with_their_wins(tmp_path):
    made = _make(tmp_path)
    made.restore({})
    for step in range(1, 4):
        for _ in range(50):
            made.add(_game((step, 1.0), (step, 1.0), (step, 0.0)), 100 * step - 1)
        made.add(_game(), 100 * step)
    elos = [record.elo for record in made._records]
    assert elos == sorted(elos)
    assert elos[0] == 0.0
    assert 80.0 < elos[1] < 160.0  # 2 of 3 games: 120 points
