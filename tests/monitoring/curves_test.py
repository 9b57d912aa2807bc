"""Learning curves from the files of runs."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from impala_mp import errors
from impala_mp.monitoring import curves, figures
from impala_mp.storage import metrics

_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    folders = [str(tmp_path / f"run{i}") for i in range(3)]
    for folder in folders:
        (tmp_path / folder).mkdir()
        writer = metrics.Writer(folder)
        for step in range(0, 1000, 100):
            record = {"agent_steps": step, "env_frames": step, "updates": step}
            noise = rng.normal()
            record |= {"time_secs": step, "episode/return_mean": step / 10 + noise}
            writer.write(record | {"evaluation/return_mean": step / 10})
        writer.close()
    return folders


def _evaluation(policy, steps, mean, low, high):
    line = {"policy": policy, "purpose": "progress", "episodes": 20}
    line |= dict.fromkeys(("agent_steps", "updates", "time_secs"), steps)
    return line | {"mean": mean, "low": low, "high": high}


def _add_games(folder, returns, seed=0, random=-5.0):
    """Adds the newer files of a run: a game each 10 agent steps."""
    config = {"environment": {"id": "KeyDoor-v0"}, "algorithm": "vtrace", "seed": seed}
    evaluations = [
        _evaluation("random", 0, random, random, random),
        _evaluation("greedy", 500, 90.0, 80.0, 130.0),
        _evaluation("sampled", 900, 85.0, 80.0, 95.0),
    ]
    rows = [f"{10 * i},{i},{value},9,\n" for i, value in enumerate(returns)]
    texts = {
        "config.json": json.dumps(config),
        "evaluations.jsonl": "".join(f"{json.dumps(each)}\n" for each in evaluations),
        "changes.jsonl": '{"agent_steps": 300}\n',
        "episodes.csv": "agent_steps,time_secs,return,length,task\n" + "".join(rows),
    }
    for name, text in texts.items():
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)


@pytest.fixture
def drawn(monkeypatch):
    """Returns a function that gives the figure of a plot."""
    found = []
    monkeypatch.setattr(figures, "write", lambda figure, _: found.append(figure))

    def draw(groups, **options):
        curves.plot(groups, "x.png", **options)
        found[-1].draw_without_rendering()
        return found[-1]

    return draw


def _legend(figure):
    return [t.get_text() for legend in figure.legends for t in legend.get_texts()]


def test_a_band_is_the_range_of_the_seeds():
    x = np.arange(3.0)
    series = [(x, x + offset) for offset in (-1.0, 0.0, 4.0)]
    grid, mean, low, high = curves.band(series)
    np.testing.assert_allclose(mean, grid + 1.0)
    np.testing.assert_allclose(low, grid - 1.0)
    np.testing.assert_allclose(high, grid + 4.0)


def test_a_band_covers_what_all_runs_cover():
    grid, *_ = curves.band(
        [(np.array([0.0, 5.0]), np.zeros(2)), (np.array([1.0, 9.0]), np.zeros(2))]
    )
    assert (grid[0], grid[-1]) == (1.0, 5.0)


def test_one_run_has_all_that_happened(runs, drawn):
    _add_games(runs[0], np.arange(100.0))
    figure = drawn({"KeyDoor-v0": runs[:1]})
    (axes,) = figure.axes
    assert axes.get_title() == "KeyDoor-v0 · vtrace · seed 0"
    assert _legend(figure) == [
        "game",
        "mean of the last 100 games",
        "their lowest to highest fifth",
        "greedy evaluation, 95 % interval",
        "sampled evaluation, 95 % interval",
        "random policy",
        "change of a value",
    ]
    games, mean, *_ = axes.lines
    np.testing.assert_allclose(games.get_xydata(), [(10 * i, i) for i in range(100)])
    np.testing.assert_allclose(mean.get_ydata(), np.arange(100) / 2)
    random = next(line for line in axes.lines if line.get_label() == "random policy")
    assert random.get_xydata().tolist() == [[0.0, -5.0]]
    assert axes.get_xlim() == (0.0, pytest.approx(1.02 * 990))
    assert axes.get_ylim()[0] < -5.0
    assert axes.get_ylim()[1] > 130.0


def test_a_few_seconds_of_training_are_a_curve_already(runs, drawn):
    _add_games(runs[0], [0.0, 1.0])
    (axes,) = drawn({"a": runs[:1]}, x="time_secs").axes
    assert axes.lines[1].get_xydata().tolist() == [[0.0, 0.0], [1.0, 0.5]]
    assert axes.get_xlabel() == "seconds of training"


def test_many_games_are_thinned_out_the_same_way_each_time(runs, drawn):
    returns = np.random.default_rng(0).normal(size=9000)
    returns[7] = 1e6
    _add_games(runs[0], returns)
    found = [drawn({"a": runs[:1]}) for _ in range(2)]
    points = [figure.axes[0].lines[0].get_xydata() for figure in found]
    np.testing.assert_array_equal(*points)
    assert len(points[0]) == 4000
    assert found[0].axes[0].lines[0].get_rasterized()
    assert _legend(found[0])[0] == "game (1 outside the axes)"


@pytest.mark.parametrize("value", [0.0, 1.0, -21.0])
def test_a_constant_return_has_a_sane_axis(runs, drawn, value):
    _add_games(runs[0], [value] * 50, random=value)
    with open(f"{runs[0]}/evaluations.jsonl", "w") as file:
        file.write(json.dumps(_evaluation("random", 0, *[value] * 3)) + "\n")
    low, high = drawn({"a": runs[:1]}).axes[0].get_ylim()
    assert low < value < high
    assert high - low == pytest.approx(abs(value) or 2.0)


def test_returns_of_any_size_are_drawn(runs, tmp_path):
    _add_games(runs[0], [1e299, -1e299, 1e-299, 0.0, 1e200])
    curves.plot({"a": runs[:1]}, str(tmp_path / "a.png"), str(tmp_path / "a.svg"))
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_seeds_have_a_mean_and_its_interval_and_no_games(runs, drawn):
    for seed, folder in enumerate(runs):
        _add_games(folder, np.arange(100.0) + seed, seed)
    figure = drawn({"a": runs})
    (axes,) = figure.axes
    assert axes.get_title() == "KeyDoor-v0 · vtrace · 3 seeds"
    assert _legend(figure) == [
        "a (3 seeds)",
        "lowest to highest seed",
        "greedy evaluation",
        "sampled evaluation",
        "random policy",
    ]
    np.testing.assert_allclose(axes.lines[0].get_ydata()[-1], 99 / 2 + 1)


def test_the_random_policy_is_that_of_one_environment(runs, drawn):
    for seed, folder in enumerate(runs):
        _add_games(folder, np.arange(100.0), seed)
    with open(f"{runs[0]}/config.json", "w") as file:
        json.dump({"environment": {"id": "Other-v0"}, "algorithm": "vtrace"}, file)
    figure = drawn({"a": runs[:1], "b": runs[1:]})
    assert "random policy" not in _legend(figure)
    assert figure.axes[0].get_title() == "vtrace · several seeds"


def test_titles_have_what_runs_have_in_common(runs, drawn):
    for seed, folder in enumerate(runs):
        _add_games(folder, np.arange(100.0), seed)
    titles = {
        "mine · KeyDoor-v0 · vtrace · seed 1": {"mine": runs[1:2]},
        "KeyDoor-v0 · vtrace": {"a": runs[:1], "b": runs[1:2]},
        "KeyDoor-v0 · vtrace · seed 0": {"a": runs[:1], "b": runs[:1]},
        "KeyDoor-v0 · vtrace · 2 seeds each": {"a": runs[:2], "b": runs[1:]},
    }
    for title, groups in titles.items():
        assert drawn(groups).axes[0].get_title() == title


def test_another_metric_is_a_line_of_its_records(runs, drawn):
    _add_games(runs[0], np.arange(100.0))
    figure = drawn({"a": runs[:1]}, key="evaluation/return_mean", x="updates")
    (axes,) = figure.axes
    assert _legend(figure) == []
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[s, s / 10] for s in range(0, 1000, 100)]
    assert axes.get_ylabel() == "evaluation/return_mean"
    axes = drawn({"a": runs[:1]}, x="evaluation/return_mean").axes[0]
    assert axes.get_xlim()[0] < 0.0


def test_older_runs_have_their_records(runs, drawn):
    figure = drawn({"old": runs[:1]})
    assert _legend(figure) == ["mean of the last 100 games", "evaluation"]
    assert figure.axes[0].get_title() == "old"


def test_a_picture_is_drawn_as_png_and_svg(runs, tmp_path):
    paths = [str(tmp_path / name) for name in ("curve.png", "curve.svg")]
    curves.plot({"three": runs, "one": runs[:1]}, *paths)
    assert Image.open(paths[0]).size == (1280, 720)
    assert len(Image.open(paths[0]).convert("RGB").getcolors(100_000)) > 10
    assert (tmp_path / "curve.svg").read_text().rstrip().endswith("</svg>")


def test_numbers_that_are_not_there_are_refused(runs, tmp_path):
    with pytest.raises(errors.BadInput, match="It has agent_steps"):
        curves.plot({"a": runs}, str(tmp_path / "x.png"), key="loss/none")
    with pytest.raises(errors.BadInput, match="none at all"):
        curves.plot({"a": [str(tmp_path)]}, str(tmp_path / "x.png"))
    with pytest.raises(errors.BadInput, match="must end in"):
        curves.plot({"a": runs}, str(tmp_path / "x.png"), str(tmp_path / "x.pdf"))
    assert not (tmp_path / "x.png").exists()


def test_no_window_is_needed(runs, tmp_path):
    code = (
        "import sys; from impala_mp.monitoring import curves;"
        f"curves.plot({{'a': [{runs[0]!r}]}}, {str(tmp_path / 'x.svg')!r});"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.integration
def test_the_tool(runs, tmp_path):
    path = tmp_path / "tool.png"
    command = [sys.executable, str(_ROOT / "tools/plot.py"), f"--output={path}"]
    subprocess.run([*command, f"all={','.join(runs)}"], check=True, timeout=120)
    assert path.stat().st_size > 1000
    nowhere = f"--output={tmp_path / 'no' / 'tool.png'}"
    pdf = f"--output={tmp_path / 'tool.pdf'}"
    messages = ""
    for arguments in (
        (*command, "nowhere"),
        (*command[:2], pdf, runs[0]),
        (*command[:2], nowhere, runs[0]),
    ):
        bad = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
        assert bad.returncode == 2
        assert "Traceback" not in bad.stderr
        messages += bad.stderr
    assert "which does not exist. Make it" in messages
    assert "must end in .png or .svg" in messages
