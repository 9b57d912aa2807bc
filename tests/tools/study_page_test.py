"""The page of a study: its statistics against naive twins, and what it states."""

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import study_page
from impala_mp import errors
from impala_mp.storage import machine, metrics

_FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12)


@settings(deadline=None)
@given(_FLOATS)
def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(values):
    ordered = sorted(values)
    for _ in range(len(values) // 4):
        ordered = ordered[1:-1]
    expected = sum(ordered) / len(ordered)
    actual = study_page.interquartile_mean(np.array(values))
    assert actual == pytest.approx(expected, abs=1e-6)


def test_an_interval_covers_the_mean_of_most_samples():
    """95 of 100 intervals would with many seeds; a bootstrap of eight is narrower."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        low, high = study_page.interval([rng.normal(5.0, 2.0, 8)])
        covered += low <= 5.0 <= high
    assert 80 <= covered <= 99


def test_seeds_are_drawn_within_their_experiment():
    """Two experiments without spread give an interval without width."""
    groups = [np.full(3, 1.0), np.full(3, 9.0)]
    assert study_page.interval(groups) == (5.0, 5.0)


def test_a_profile_is_the_share_of_runs_above_each_score():
    taus, shares = study_page.profile([np.array([0.5, 1.0]), np.array([0.25, 2.0])])
    assert shares[0] == 1.0
    assert shares[-1] == 0.0
    assert shares[np.searchsorted(taus, 0.7)] == 0.5
    assert (np.diff(shares) <= 0).all()


@pytest.mark.parametrize("scores", [{}, {"b": [0, 1]}, {"a": [2, 2]}])
def test_reference_scores_that_do_not_fit_are_refused(scores):
    with pytest.raises(errors.BadInput, match="--scores"):
        study_page.normalised({"a": [1.0]}, scores)


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"a": [1, 2, 3]}', "{"])
def test_a_file_of_scores_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(errors.BadInput, match="give a JSON object"):
        study_page.read_scores(str(path))


def _write_run(folder, secs):
    folder.mkdir(parents=True)
    writer = metrics.Writer(str(folder))
    for step in (1000, 2000):
        record = dict.fromkeys(metrics.COUNTERS, step)
        writer.write(record | {"episode/count": 500, "episode/return_mean": step / 1e3})
    writer.close()
    final = {"agent_steps": 2000, "time_secs": secs, "mean": 0.0}
    (folder / "evaluation.json").write_text(json.dumps({"greedy": final}))
    facts = {"processor": "A Processor, 4 cores", "torch": "2.13", "commit": "abc123"}
    (folder / machine.NAME).write_text(json.dumps(facts))


def test_a_profile_ends_above_the_best_run():
    taus, shares = study_page.profile([np.array([-0.5, -0.4])])
    assert taus[0] == -0.5
    assert shares[-1] == 0.0


def test_a_run_without_facts_on_its_machine_is_a_row_too(tmp_path):
    _write_run(tmp_path / "run", secs=60.0)
    (tmp_path / "run" / machine.NAME).unlink()
    seed = study_page.read_seed(tmp_path / "run", 3.0)
    assert seed == study_page.Seed(3.0, 2000, 60.0, 0, {})
    assert "| 3 (one seed) |" in study_page._line("a", [seed], 1)


def test_seeds_that_ended_at_different_steps_have_both():
    seeds = [study_page.Seed(3.0, steps, 60.0, 2, {}) for steps in (900, 2000, 1500)]
    assert "| 900 to 2,000 | 60 to 60 |" in study_page._line("a", seeds, 1)


def test_a_page_has_returns_intervals_costs_machine_and_commit(tmp_path):
    folders = {
        name: [tmp_path / name / str(seed) for seed in range(2)] for name in ("a", "b")
    }
    for name, runs in folders.items():
        for seed, folder in enumerate(runs):
            _write_run(folder, secs=900.0 + 900.0 * seed if name == "a" else 90.0)
    returns = {"a": [10.0, 20.0], "b": [3.0, 3.0]}
    page = tmp_path / "docs" / "a-study.md"
    page.parent.mkdir()
    scores = {"a": [0.0, 10.0], "b": [1.0, 2.0]}
    command, which = "python tools/study.py", "best"
    study_page.write(page, command, folders, returns, scores, 2, which)
    text = page.read_text()
    assert "100 full games of the `best` checkpoint" in text
    assert "| `a` | 10, 20 | 15 (10 to 20) | 2,000 | 900 to 1,800 | 1.50 |" in text
    assert "| `b` | 3, 3 | 3 (3 to 3) | 2,000 | 90 to 90 | 0.10 |" in text
    assert "reference scores each: 2.000 (" in text  # of 1, 2, 2 and 2
    assert text.count("A Processor, 4 cores, GPU unknown, torch 2.13") == 1
    assert "commit abc123" in text
    for name in ("a-study", "a-study-profile"):
        assert (page.parent / "figures" / f"{name}.png").stat().st_size > 1000
        assert f"(figures/{name}.png)" in text
