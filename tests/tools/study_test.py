"""The study tool: what it reads from runs, and what it refuses to mix."""

import concurrent.futures
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import harness
from impala_mp import errors
from impala_mp.config import container_limits
from impala_mp.monitoring import curves, figures
from impala_mp.storage import files, machine, metrics

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TOOL = _ROOT / "tools" / "study.py"
_CATCH = str(_ROOT / "experiments" / "catch.py")
_STALENESS = str(_ROOT / "experiments" / "staleness.py")
_EXPERIMENTS = [f"{_STALENESS}:{v}" for v in ("0", "16", "0-uncorrected")]


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(_TOOL))


def _study(output, *arguments):
    command = [sys.executable, str(_TOOL), f"--output={output}", "--seeds=2"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _write_run(folder, steps, returns=None, lags=None):
    folder.mkdir(parents=True, exist_ok=True)
    writer = metrics.Writer(str(folder))
    for i, step in enumerate(steps):
        record = dict.fromkeys(metrics.COUNTERS, int(step))
        record["episode/count"] = 1000
        record["episode/return_mean"] = float(returns[i]) if returns is not None else i
        writer.write(record | {"lag/mean": lags[i] if lags else 0.0})
    writer.close()


def test_steps_to_a_target_do_not_depend_on_how_often_a_run_was_recorded(
    tool, tmp_path
):
    """A dense run has more records, and one of them is a lucky spike."""
    dense = np.arange(100, 10_001, 100)
    truth = dense / 1000.0
    returns = truth.copy()
    returns[12] = 9.0
    _write_run(tmp_path / "dense", dense, returns)
    _write_run(tmp_path / "sparse", dense[9::10], truth[9::10])
    folders = [tmp_path / "dense", tmp_path / "sparse"]
    gap = max(map(tool["_longest_gap"], folders))
    assert gap == 1000
    assert [tool["_steps_to"](f, 4.5, gap) for f in folders] == [5000, 5000]
    assert [tool["_steps_to"](f, 20.0, gap) for f in folders] == [None, None]


def test_the_mean_lag_weighs_updates_not_records(tool, tmp_path):
    _write_run(tmp_path / "run", [10, 20, 100], lags=[1.0, 1.0, 6.0])
    assert tool["_mean_lag"](tmp_path / "run") == pytest.approx(5.0)


def _fake_results(tool, output, flags=()):
    """Finished runs that nobody trained: config, metrics and evaluation."""
    for i, experiment in enumerate(_EXPERIMENTS):
        for seed in (0, 1):
            run = tool["_make_run"](output, experiment, seed, flags)
            _write_run(run.folder, [1000, 2000, 3000], lags=[float(i)] * 3)
            for group in ("learner", "inference"):  # chosen before a run begins
                run.config[group].device = "cpu"
                run.config[group].precision = "float32"
            config = run.config.to_json_best_effort()
            files.write_atomically(str(run.folder / "config.json"), config)
            line = json.dumps({"mean": 10.0 * i + seed, "agent_steps": 1_000_000})
            (run.folder / "study-newest.json").write_text(line)


@pytest.mark.integration
def test_a_result_of_other_flags_is_refused(tool, tmp_path):
    _fake_results(tool, tmp_path)
    done = _study(tmp_path, *_EXPERIMENTS, "--config.loss.entropy_cost=0.5")
    assert done.returncode == 2
    assert "loss.entropy_cost is 0.03 there, 0.5 here" in done.stderr
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--seeds=0", "--seeds=0 must be at least 1"),
        ("--jobs=-1", "--jobs=-1 must be at least 1"),
        ("--checkpoint=bset", "--checkpoint=bset must be newest, best or the number"),
    ],
)
def test_flags_are_refused_before_anything_runs(
    tool, monkeypatch, capsys, flag, sentence
):
    monkeypatch.setattr(sys, "argv", ["study.py", "--output=o", flag, _CATCH])
    with pytest.raises(SystemExit, match="2"):
        tool["_options"]()
    assert sentence in capsys.readouterr().err


@pytest.mark.integration
def test_what_a_training_refuses_is_a_sentence(tool, tmp_path):
    run = tool["_make_run"](tmp_path, _CATCH, 0, ["--config.actors.environments=-3"])
    with pytest.raises(errors.BadInput) as raised:
        tool["_complete_all"]([run], [set()])
    sentence = "actors.environments (-3) must be at least 0. Set"
    assert str(raised.value).startswith(f"{run.folder}: {sentence}")


@pytest.mark.integration
def test_a_run_in_which_no_game_ended_is_not_called_stopped(tool, tmp_path):
    settings = {
        "total_agent_steps": 2000,
        "runtime.mode": "lockstep",
        "evaluation.interval_steps": 0,
        "evaluation.film": False,
        "evaluation.max_steps": 1,
    }
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    run = tool["_make_run"](tmp_path, _CATCH, 0, flags)
    sentence = "no final evaluation: no game has ended.*Raise config.evaluation.max"
    with pytest.raises(errors.BadInput, match=sentence):
        tool["_complete_all"]([run], [set()])


def test_a_run_that_was_stopped_can_be_resumed(tool, tmp_path, monkeypatch):
    run = tool["_make_run"](tmp_path, _CATCH, 0, [])
    monkeypatch.setattr(sys, "executable", "true")
    with pytest.raises(errors.BadInput, match="was stopped. The same command resumes"):
        tool["_complete_all"]([run], [set()])


def test_a_study_that_has_ended_starts_no_command(tool, tmp_path):
    commands = tool["_Commands"]()
    commands.end()
    with pytest.raises(RuntimeError, match="the study has ended"):
        commands.call("train", tool["_make_run"](tmp_path, _CATCH, 0, []))


_TRAINING = """
import os, pathlib, sys, time
if "impala_mp.cli.train" in sys.orig_argv:
    pathlib.Path(__file__).with_name(f"{os.getpid()}.pid").touch()
    time.sleep(600.0)
"""


@pytest.mark.integration
def test_a_study_that_is_told_to_end_ends_its_trainings(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_TRAINING)
    command = [sys.executable, str(_TOOL), f"--output={tmp_path}/study", _CATCH]
    study = subprocess.Popen(
        [*command, "--seeds=3", "--jobs=2"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )

    def trainings():
        return [int(path.stem) for path in tmp_path.glob("*.pid")]

    try:
        assert harness.wait_for(lambda: len(trainings()) == 2, 120.0)
        study.send_signal(signal.SIGTERM)
        _, problems = study.communicate(timeout=60.0)
        assert (study.returncode, problems) == (143, "")
        assert len(trainings()) == 2  # the third has not begun
        assert not harness.survivors(trainings(), secs=10.0)
    finally:
        study.kill()
        for pid in filter(harness.is_alive, trainings()):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.integration
def test_experiments_of_one_name_are_refused(tmp_path):
    catch = pathlib.Path(_CATCH)
    (tmp_path / "catch.py").write_text(catch.read_text())
    done = _study(tmp_path / "study", str(catch), str(tmp_path / "catch.py"))
    assert done.returncode == 2
    assert "two experiments have the name 'catch', and so one folder" in done.stderr


@pytest.mark.integration
def test_results_that_are_there_are_tabulated_and_drawn(tool, tmp_path):
    flags = ["--config.loss.entropy_cost=0.5", "--config.actors.count=auto"]
    flags += ["--config.learner.precision=auto"]
    _fake_results(tool, tmp_path, flags)
    against = ["--x=actors.policy_delay", "--lines=vtrace.correction", "--target=1.5"]
    done = _study(tmp_path, *_EXPERIMENTS, *flags, *against)
    assert done.returncode == 0, done.stderr
    assert "± 0.71  (10.00, 11.00)  lag: 1.00, 1.00" in done.stdout
    assert "steps to target: 3,000, 3,000" in done.stdout
    row = json.loads((tmp_path / "results.json").read_text())["staleness-16"]
    assert row["returns"] == [10.0, 11.0]
    assert row["lags"] == [1.0, 1.0]
    assert row["std"] == pytest.approx(0.5**0.5)
    assert row["steps_to_target"] == [3000, 3000]
    assert row["steps_apart"] == 1000
    assert (tmp_path / "curves.svg").exists()
    for name in ("curves.png", "against.png"):
        assert len(Image.open(tmp_path / name).convert("RGB").getcolors(100_000)) > 10


@pytest.mark.integration
def test_an_axis_that_cannot_be_drawn_is_refused_before_anything_runs(tmp_path):
    done = _study(tmp_path, *_EXPERIMENTS, "--x=actors.policy_dela")
    assert "Did you mean 'actors.policy_delay'?" in done.stderr
    done = _study(tmp_path, *_EXPERIMENTS, "--x=actors.policy_delay")
    assert "staleness-0-uncorrected has the same actors.policy_delay" in done.stderr
    assert _study(tmp_path, *_EXPERIMENTS, "--lines=seed").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_lines_have_the_mean_its_band_and_a_dot_for_each_seed(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "write", lambda figure, _: drawn.update(f=figure))
    lines = {
        "corrected": {16: [5.0, 7.0], 0: [8.0, 10.0]},
        "not": {16: [1.0, 1.0]},
    }
    curves.plot_against(lines, str(tmp_path / "x.png"), "actors.policy_delay")
    axes = drawn["f"].axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "16"]
    means = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in means] == ["corrected", "not"]
    assert list(means[0].get_ydata()) == [9.0, 6.0]
    assert list(means[1].get_xdata()) == [1]
    dots = [tuple(line.get_ydata()) for line in axes.lines if line not in means]
    assert dots == [(8.0, 5.0), (10.0, 7.0), (1.0,), (1.0,)]
    assert len(axes.collections) == 2


def test_core_hours_are_shared_by_no_more_runs_than_there_are(
    tool, tmp_path, monkeypatch
):
    _fake_results(tool, tmp_path)
    for folder in tmp_path.glob("*/*"):
        final = {"agent_steps": 1_000_000, "time_secs": 3600.0}
        (folder / "evaluation.json").write_text(json.dumps({"greedy": final}))
        facts = {"processor": "A Processor, 4 cores"}
        (folder / machine.NAME).write_text(json.dumps(facts))
    monkeypatch.setattr(container_limits, "cores_to_bind", lambda: [])
    page = tmp_path / "page.md"
    flags = [f"--output={tmp_path}", "--seeds=2", "--jobs=8", f"--page={page}"]
    monkeypatch.setattr(sys, "argv", ["study.py", *flags, *_EXPERIMENTS[:2]])
    tool["_main"]()
    hours = 2 * 4 / 4  # of two runs on four cores, four runs at a time
    assert page.read_text().count(f"| 3,600 to 3,600 | {hours:.2f} |") == 2


def test_runs_at_a_time_have_different_cores(tool, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 4, 6})
    assert tool["_shares"](1) == [set()]
    assert tool["_shares"](2) == [{1, 4}, {3, 6}]
    assert tool["_shares"](3) == [{1, 6}, {3}, {4}]
    assert tool["_shares"](5) == [set()] * 5
    monkeypatch.setattr(container_limits, "_quotas", lambda: [2.0])  # on any of the 4
    assert tool["_shares"](2) == [set()] * 2


def test_a_run_stays_on_its_cores(tool):
    """The processes that a thread starts have its cores; other threads keep theirs."""
    cores = os.sched_getaffinity(0)
    own = max(cores)
    code = "import os; print(*os.sched_getaffinity(0))"
    call = [sys.executable, "-c", code]

    def started():
        tool["_stay_on"]({own})
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(started).result().split() == [str(own)]
    assert os.sched_getaffinity(0) == cores
