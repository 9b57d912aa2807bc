"""Every game that is learned from is one row, with the user's numbers."""

import gymnasium
import numpy as np
import pytest

from impala_mp.environments import catch
from impala_mp.storage import episodes
from impala_mp.workers import (
    builders as worker_builders,
    ended_games,
    episode_statistics,
)
from tests.support import builders


class Numbered(catch.CatchVectorEnv):
    """Catch with the number of each game, and one number that comes late."""

    def __init__(self, num_envs, late=3, **kwargs):
        super().__init__(num_envs, **kwargs)
        self._late, self._games = late, np.zeros(num_envs)

    def step(self, actions):
        *row, info = super().step(actions)
        over = row[2]
        self._games += over
        info = {**info, "game": self._games.copy(), "_game": over}
        if (self._games >= self._late).any():
            info |= {
                "metrics": {"late": self._games / 2, "_late": over},
                "_metrics": over,
            }
        return (*row, info)


gymnasium.register("NumberedCatch-v0", vector_entry_point=Numbered)


def _parts(folder, name="NumberedCatch-v0", **overrides):
    config = builders.config(**{"environment.id": name, **overrides})
    parts = builders.parts(config, folder / "checkpoints")
    parts.training.restore(print)
    return parts


def _learn(parts, updates):
    for _ in range(updates):
        builders.act(parts)
        while parts.training.ready():
            parts.training.step()
    parts.training.write_record()


def _record(parts):
    record = parts.shared.learner_record.read()[-1]
    names = parts.shared.learner_names[0].names()
    return episode_statistics.with_names(record, names)


def test_each_game_is_a_row(tmp_path):
    parts = _parts(tmp_path)
    _learn(parts, 20)
    rows, record = episodes.read(str(tmp_path)), _record(parts)
    count = int(record["episode/count"])
    assert len(rows["return"]) == count > 40
    assert rows["return"][-100:].mean() == pytest.approx(record["episode/return_mean"])
    assert set(rows["length"]) == {9.0}
    assert (np.diff(rows["agent_steps"]) >= 0).all()
    assert rows["agent_steps"][-1] <= record["agent_steps"]
    # 6 copies count their games: none is missing, none is there twice.
    each, counts = np.unique(rows["game"], return_counts=True)
    assert each.tolist() == list(range(1, len(each) + 1))
    assert (counts[:-2] == 6).all()
    late = rows["game"] >= 3
    np.testing.assert_array_equal(rows["late"][late], rows["game"][late] / 2)
    assert np.isnan(rows["late"][~late]).all()
    assert record["env/game/max"] == rows["game"].max()
    assert record["env/late"] == pytest.approx(np.nanmean(rows["late"][-100:]))


def test_a_learner_that_lost_updates_drops_their_games(tmp_path):
    parts = _parts(tmp_path)
    _learn(parts, 10)
    assert parts.training.save()
    saved = episodes.read(str(tmp_path))
    _learn(parts, 5)
    assert len(episodes.read(str(tmp_path))["return"]) > len(saved["return"])
    parts.shared.learner_memory.discard()  # which would lose fewer
    learner = parts.shared.topology.learner()
    again = worker_builders.make_learner(learner, parts.shared)
    again.restore(print)
    assert str(episodes.read(str(tmp_path))) == str(saved)
    _learn(parts._replace(training=again), 5)
    rows, record = episodes.read(str(tmp_path)), _record(parts)
    assert len(rows["return"]) == record["episode/count"] > len(saved["return"])


def test_a_resumed_run_keeps_the_columns(tmp_path):
    parts = _parts(tmp_path)
    _learn(parts, 20)
    assert parts.training.save()
    before = episodes.read(str(tmp_path))
    parts = _parts(tmp_path)
    _learn(parts, 8)
    rows = episodes.read(str(tmp_path))
    assert list(rows) == list(before) == [*episodes.FIELDS, "game", "late"]
    assert len(rows["return"]) > len(before["return"])
    assert _record(parts)["episode/count"] == len(rows["return"])


def test_actors_with_other_names_share_the_columns(tmp_path):
    """Two tasks: each has a number that the other lacks, and one in common."""
    gymnasium.register(
        "NumberedLate-v0", vector_entry_point=Numbered, kwargs={"late": 1}
    )
    parts = _parts(tmp_path, "NumberedCatch-v0, NumberedLate-v0")
    _learn(parts, 12)
    rows, record = episodes.read(str(tmp_path)), _record(parts)
    task = np.array(rows["task"])
    assert set(task) == {"NumberedCatch-v0", "NumberedLate-v0"}
    late = task == "NumberedLate-v0"
    np.testing.assert_array_equal(rows["late"][late], rows["game"][late] / 2)
    assert record["env/game/NumberedLate-v0"] == pytest.approx(
        rows["game"][late].mean()
    )


def test_no_file_without_the_wish(tmp_path):
    parts = _parts(tmp_path, **{"logging.episodes": False})
    _learn(parts, 8)
    assert not (tmp_path / "episodes.csv").exists()
    assert _record(parts)["env/game/max"] > 1


def test_a_run_has_its_records_by_progress(tmp_path):
    """200 and more, the first at once, however short the run is."""
    config = builders.short_training(**{"total_agent_steps": 30 * 400})
    config.logging.interval_secs = 1e5
    parts = builders.parts(config, tmp_path / "checkpoints")
    parts.training.restore(print)
    parts.shared.learner_record.read()
    found = []
    for update in range(400):
        builders.act(parts)
        parts.training.step()
        if parts.training.record_is_due():
            parts.training.write_record()
        if update % 50 == 0:
            found += parts.shared.learner_record.read()
    found += parts.shared.learner_record.read()
    assert len(found) >= 200
    assert found[0]["updates"] == 1
    assert found[-1]["updates"] >= 398


def test_a_reader_that_is_late_loses_no_record(tmp_path):
    """Records wait for space in the ring, and then have the means of more updates."""
    parts = _parts(tmp_path, **{"logging.interval_secs": 1e-9})
    parts.shared.learner_record.read()
    for _ in range(300):
        builders.act(parts)
        parts.training.step()
        if parts.training.record_is_due():
            parts.training.write_record()
    parts.training.write_record()  # the last has room
    updates = [r["updates"] for r in parts.shared.learner_record.read()]
    assert updates[-1] == 300
    assert updates[:-1] == list(range(1, len(updates)))


def test_games_of_another_rank_are_rows_with_its_numbers(tmp_path):
    """Its columns have another order, and a name that is new here."""
    parts = _parts(tmp_path)
    log = parts.training._games
    log._games.add_names(["late"])
    games = ended_games.Games(
        np.array([1.0, -1.0], np.float32),
        np.array([9, 8], np.int32),
        np.array([0, 0]),
        np.array([[5.0, np.nan], [6.0, 3.0]]),
    )
    log.add_rows(ended_games.rows(games), ["game", "late"], 100, 2.0)
    log.flush()
    rows = episodes.read(str(tmp_path))
    assert rows["return"].tolist() == [1.0, -1.0]
    assert rows["length"].tolist() == [9.0, 8.0]
    assert rows["game"].tolist() == [5.0, 6.0]
    assert np.isnan(rows["late"][0])
    assert rows["late"][1] == 3.0
