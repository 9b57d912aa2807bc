"""What happened in a run, read from its files."""

import json

import numpy as np
import pytest

from impala_mp import errors
from impala_mp.monitoring import run_history
from impala_mp.storage import metrics

_HEADER = "agent_steps,time_secs,return,length,task\n"


def _record(steps, **more):
    # An update has 100 agent steps, an agent step 4 frames; a second has 50 of them.
    counters = {"env_frames": 4 * steps, "updates": steps // 100}
    return {"agent_steps": steps, "time_secs": steps / 50, **counters, **more}


def _evaluation(policy, steps, mean, episodes, **more):
    """Returns an evaluation with the interval from `mean` - 1 to `mean` + 2."""
    line = {"policy": policy, "purpose": "progress", "agent_steps": steps}
    line |= {"updates": steps // 100, "time_secs": steps / 50, "episodes": episodes}
    return line | {"mean": mean, "low": mean - 1, "high": mean + 2, **more}


def _write(path, records=(), games=(), evaluations=(), changes=()):
    """Writes the files of a run; `games` are (agent steps, return)."""
    lines = {"metrics": records, "evaluations": evaluations, "changes": changes}
    for name, each in lines.items():
        text = "".join(f"{json.dumps(line)}\n" for line in each)
        (path / f"{name}.jsonl").write_text(text)
    if games:
        rows = [f"{steps},{steps / 50},{value},9,\n" for steps, value in games]
        (path / "episodes.csv").write_text(_HEADER + "".join(rows))
    return str(path)


@pytest.mark.parametrize("num_games", [1, 4, 19, 99, 100, 101, 350])
def test_the_last_games_are_those_of_a_naive_twin(num_games):
    rng = np.random.default_rng(num_games)
    x = np.sort(rng.integers(0, 40, num_games) * 10.0)  # several games a batch
    returns = rng.normal(size=num_games)
    line = run_history.summarise(x, returns)
    assert list(line.x) == sorted({*x})
    for i, end in enumerate(line.x):
        last = np.sort(returns[x <= end][-100:])
        fifth = int(np.ceil(len(last) / 5))
        assert line.mean[i] == pytest.approx(last.mean())
        assert line.low[i] == pytest.approx(last[:fifth].mean())
        assert line.high[i] == pytest.approx(last[-fifth:].mean())
    assert line.usual.min() >= min(returns)
    assert line.usual.max() <= max(returns)


@pytest.mark.parametrize("place", [3, 150])
def test_one_outlier_in_a_hundred_games_is_not_usual(place):
    returns = np.r_[np.zeros(place), 1e6, np.ones(150)]
    line = run_history.summarise(np.arange(len(returns)) * 1.0, returns)
    assert line.mean.max() > 9_999
    assert line.usual.max() == 1.0


def test_a_million_games_are_a_thousand_points():
    line = run_history.summarise(np.arange(1e6), np.ones(1_000_000))
    assert 900 <= len(line.x) <= 1000
    assert (line.x[0], line.x[-1]) == (0.0, 999_999.0)


@pytest.mark.parametrize(
    ("x", "places"),
    [
        ("agent_steps", [50, 150, 400]),
        ("time_secs", [1, 3, 8]),
        ("env_frames", [200, 600, 1600]),
        ("updates", [0.5, 1.5, 4]),
    ],
)
def test_all_that_happened_is_placed_on_each_counter(tmp_path, x, places):
    path = _write(
        tmp_path,
        [_record(100), _record(200), _record(300)],
        [(50, 1.0), (150, 2.0), (400, 3.0)],  # the last one beyond the records
        [_evaluation("greedy", 150, 5.0, 20, updates=1.5)],
        [{"agent_steps": 50, "name": "loss.entropy_cost"}, {"update": 4}],
    )
    history = run_history.read(path, x)
    np.testing.assert_allclose(history.games[0], places)
    assert list(history.games[1]) == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(history.line.mean, [1.0, 1.5, 2.0])
    greedy = history.evaluations["greedy"]
    np.testing.assert_allclose(np.ravel(greedy), [places[1], 5.0, 4.0, 7.0])
    np.testing.assert_allclose(history.events[run_history.CHANGE], places[::2])


def test_restarts_and_resumes_are_where_their_counters_grow(tmp_path):
    counts = [(0, 0), (1, 0), (1, 0), (1, 1), (3, 1), (3, 2)]
    records = [
        _record(
            100 * i, **{"health/restarts": a, "health/run": b, "episode/return_mean": 0}
        )
        for i, (a, b) in enumerate(counts)
    ]
    events = run_history.read(_write(tmp_path, records), "agent_steps").events
    assert list(events) == [run_history.RESTART, run_history.RESUME]
    assert list(events[run_history.RESTART]) == [100.0, 400.0]
    assert list(events[run_history.RESUME]) == [300.0, 500.0]


def test_a_run_to_which_nothing_happened_has_no_events(tmp_path):
    history = run_history.read(
        _write(tmp_path, [_record(1)], [(1, 0.0)]), "agent_steps"
    )
    assert history.events == {}
    assert history.evaluations == {}
    assert history.random is None


def test_each_policy_has_its_evaluations(tmp_path):
    found = [
        _evaluation("random", 0, -20.5, 20),
        _evaluation("sampled", 100, 1.0, 20, low=2.0),
        _evaluation("greedy", 200, 3.0, 100),  # the final one
        _evaluation("greedy", 200, 4.0, 20),
        _evaluation("greedy", 100, 2.0, 20),
        _evaluation("other", 200, 7.0, 20),
    ]
    path = _write(tmp_path, games=[(10, 0.0)], evaluations=found)
    history = run_history.read(path, "agent_steps")
    assert history.random == -20.5
    assert sorted(history.evaluations) == ["greedy", "sampled"]
    greedy, sampled = history.evaluations["greedy"], history.evaluations["sampled"]
    assert [*greedy.x, *greedy.mean] == [100.0, 200.0, 2.0, 3.0]
    assert [*greedy.low, *greedy.high] == [1.0, 2.0, 4.0, 5.0]
    assert [*sampled.x, *sampled.mean] == [100.0, 1.0]
    assert np.isnan([*sampled.low, *sampled.high]).all()  # it was not in its interval


def test_an_older_run_has_its_records(tmp_path):
    key = "evaluation/return_mean"
    records = [_record(s, **{"episode/return_mean": s / 10}) for s in (100, 200)]
    path = _write(tmp_path, [*records, _record(300, **{key: 7.0})])
    history = run_history.read(path, "updates")
    assert len(history.games[0]) == 0
    np.testing.assert_allclose(history.line.x, [1, 2])
    np.testing.assert_allclose(history.line.mean, [10, 20])
    assert [*history.evaluations[""].x, *history.evaluations[""].mean] == [3.0, 7.0]


def test_games_without_a_record_have_no_updates(tmp_path):
    path = _write(tmp_path, games=[(10, 0.0)])
    assert len(run_history.read(path, "time_secs").games[0]) == 1
    with pytest.raises(errors.BadInput, match="no record with updates"):
        run_history.read(path, "updates")


def test_values_that_cannot_be_drawn_are_left_out(tmp_path):
    rows = ["1,1,nan,9,", "2,1,inf,9,", "3,1,1e308,9,", "nan,1,5,9,", "4,1,,9,", "x"]
    _write(tmp_path, changes=[[1], 7, {"agent_steps": "many"}, {"agent_steps": 1e999}])
    (tmp_path / "episodes.csv").write_text(
        "\n".join([_HEADER[:-1], *rows, "5,1,7,9,\n"])
    )
    with open(tmp_path / "changes.jsonl", "a") as file:
        file.write("[" * 100_000 + "\n\x00\n" + '{"agent_steps": 5}\n{"agent_st')
    history = run_history.read(str(tmp_path), "agent_steps")
    assert [*history.games[0], *history.games[1]] == [5.0, 7.0]
    assert list(history.events[run_history.CHANGE]) == [5.0]


def test_a_folder_in_place_of_a_file_is_a_sentence(tmp_path):
    _write(tmp_path, games=[(1, 0.0)])
    (tmp_path / "changes.jsonl").unlink()
    (tmp_path / "changes.jsonl").mkdir()
    with pytest.raises(errors.BadInput, match=r"changes\.jsonl cannot be read"):
        run_history.read(str(tmp_path), "agent_steps")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"environment": {"id": "by_value_' + "0" * 32 + ':make"},'
            ' "algorithm": "vtrace", "seed": 3}',
            ("by_value:make", "vtrace", "3"),
        ),
        ('{"environment": 7, "algorithm": null, "seed": "x"}', ("", "", "")),
        ("[]", ("", "", "")),
        ("[" * 100_000, ("", "", "")),
        (None, ("", "", "")),
    ],
)
def test_the_identity_of_a_run(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert run_history.identify(str(tmp_path)) == expected


def test_numbers_are_loaded_with_their_places(tmp_path):
    path = _write(tmp_path, [_record(100), _record(200, a=1.5)])
    x, y = run_history.load(path, "env_frames", "a")
    assert [*x, *y] == [800.0, 1.5]
    assert metrics.last(path)["a"] == 1.5
