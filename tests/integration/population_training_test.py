"""Trainings of a population: resumed exactly, killed, evaluated and exported."""

import json
import math
import os
import signal

import pytest

from impala_mp.cli import export as export_command
from impala_mp.evaluation import evaluate, player
from impala_mp.monitoring import population, status
from impala_mp.runtime import preflight, program
from impala_mp.storage import checkpoint, mailbox, metrics, workdir
from impala_mp.workers import learner_loop
from tests.support import lockstep_runs, populations

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_without_pictures")]


def _train(path, **overrides):
    config = populations.get_config()
    config.update_from_flattened_dict(overrides)
    program.train(config, str(path))
    return _saved(path)


def _saved(path):
    folder = workdir.Workdir(str(path))
    return [
        checkpoint.load_newest(folder.checkpoints_of(name), print)
        for name in folder.names_of_policies()
    ]


def _rounds(path):
    """Rounds without the time of day."""
    return [{**line, "time": 0} for line in population.read(str(path))]


def _copies(path):
    """{member: copies that population.jsonl has of it}."""
    members = [x["policy"] for line in _rounds(path) for x in line["orders"]]
    return {f"member_{k}": members.count(f"member_{k}") for k in range(3)}


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, monkeypatch):
    whole, step, steps = _train(tmp_path / "whole"), learner_loop.LearnerLoop.step, []

    def stopped(self):
        step(self)
        steps.append(self)
        if len(steps) in (29, 59, 90):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(learner_loop.LearnerLoop, "step", stopped)
    for _ in range(4):
        parts = _train(tmp_path / "parts")
    assert len(steps) >= 120
    for mine, theirs in zip(parts, whole, strict=True):
        for key in ("learner", "episodes", "counts", "overrides"):
            lockstep_runs.assert_same(mine[key], theirs[key], key)
        assert repr(mine["population"]) == repr(theirs["population"])  # NaN included
    lockstep_runs.assert_same(parts[0]["actors"], whole[0]["actors"])
    rounds = _rounds(tmp_path / "whole")
    assert _rounds(tmp_path / "parts") == rounds
    assert [line["round"] for line in rounds] == [1, 2, 3, 4]
    assert sum(_copies(tmp_path / "whole").values()) >= 2
    for k, state in enumerate(whole):
        copies = _copies(tmp_path / "whole")[f"member_{k}"]
        assert state["population"]["copies"] == copies
        low, high = populations.RATES
        assert low <= state["overrides"]["learning_rate_factor"] <= high


@pytest.mark.slow
def test_a_killed_run_decides_again_what_it_has_lost(tmp_path, monkeypatch):
    """It ends at once after the second round, and resumes from a checkpoint before."""
    whole, look = _train(tmp_path / "whole"), population.Population.look

    class Killed(BaseException):
        pass

    def dies(self):
        look(self)
        if self._round == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(population.Population, "look", dies)
        with pytest.raises(Killed):
            _train(tmp_path / "killed")
    assert [line["round"] for line in _rounds(tmp_path / "killed")] == [1, 2]
    found = _train(tmp_path / "killed")
    assert _rounds(tmp_path / "killed") == _rounds(tmp_path / "whole")
    for mine, theirs in zip(found, whole, strict=True):
        for key in ("learner", "overrides"):
            lockstep_runs.assert_same(mine[key], theirs[key], key)
        assert repr(mine["population"]) == repr(theirs["population"])


def test_members_are_shown_evaluated_exported_and_played(tmp_path, capsys, monkeypatch):
    path = str(tmp_path / "run")
    _train(path)
    shown = capsys.readouterr().out
    final = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    best = final["best_member"]
    assert f"The best member is {best}" in shown
    assert f"--policy={best}" in shown
    returns = final["sampled"]["returns"]
    assert {k: len(v) for k, v in returns.items()} == dict.fromkeys(returns, 3)
    assert len(returns) == 3
    last = metrics.read(path)[-1]
    for member, copies in _copies(path).items():
        assert last[f"population/copies/{member}"] == copies
        assert last[f"live/entropy_cost/{member}"] > 0.0
    assert last["population/copies"] == sum(_copies(path).values())
    rows = dict(population.rows(path, last))
    assert set(rows) == set(returns)
    member = max(_copies(path), key=_copies(path).get)
    assert "learning_rate_factor" in rows[member]
    assert "copied member_" in rows[member]
    state = tmp_path / "run" / "health.json"
    assert "entropy_cost" not in str(json.loads(state.read_text())["live"])
    status.read(path)
    every = evaluate.evaluate(path, 4)
    assert every["episodes"] == 12
    assert every["best"] in {"member_0", "member_1", "member_2"}
    alone = evaluate.evaluate(path, 4, policy="member_1")
    assert (alone["episodes"], "best" in alone) == (4, False)
    with pytest.raises(program.errors.BadInput, match="no policy 'member_7'"):
        evaluate.evaluate(path, 4, policy="member_7")
    with pytest.raises(program.errors.BadInput, match="members play alone"):
        evaluate.versus(path, "random", 4)
    with pytest.raises(program.errors.BadInput, match=r"Name one .* --policy"):
        player.play(path, 1, None, False, None)
    player.play(path, 1, None, False, None, policy="member_2")
    monkeypatch.setattr("sys.argv", ["impala-export", path, "--policy=member_2"])
    export_command.main()
    assert json.loads((tmp_path / "run" / "member_2.pt2.json").read_text())


def test_the_check_plays_a_batch_of_each_member(capsys):
    config = populations.get_config("processes")
    assert preflight.check(config, None)
    assert "a batch member_2" in capsys.readouterr().out


@pytest.mark.slow
def test_each_order_is_obeyed_once_though_the_learner_is_killed(start, tmp_path):
    experiment = f"{populations.__file__}:processes"
    run = start(
        "--config.total_agent_steps=100_000_000",
        "--config.population.interval=2000",
        config=experiment,
    )
    path = str(tmp_path / "run")
    for kills in range(1, 4):
        rounds = len(population.read(path))
        run.until(lambda rounds=rounds: len(population.read(path)) > rounds + 1)
        learner = run.until_running("learner")[0]
        os.kill(learner["pid"], signal.SIGKILL)
        run.until(lambda n=kills: run.text().count("restart in") >= n)
        run.until_running("learner")
    rounds = len(population.read(path))
    run.until(lambda: len(population.read(path)) > rounds + 1)
    line = mailbox.ask(path, {"set": {"member_1/entropy_cost": 0.05}}, 20.0)["lines"]
    assert line[0].endswith("to 0.05 (impala-ctl).")
    refused = mailbox.ask(path, {"unset": ["member_1/entropy_cost"]}, 20.0)["refused"]
    assert "is set by the population" in refused
    run.stop()
    given, done = _copies(path), _saved(path)
    last = {
        x["policy"]: line["round"]
        for line in population.read(path)
        for x in line["orders"]
    }
    assert sum(given.values()) >= 4
    for k, state in enumerate(done):
        name, own = f"member_{k}", state["population"]
        waits = own["obeyed"] < last.get(name, 0)  # the last order came at the end
        assert own["copies"] == given[name] - waits
    record = metrics.read(path)[-1]
    for suffix in ("", "/member_0", "/member_1", "/member_2"):
        parts = ("learned", "discarded", "in_flight")
        counts = [record[f"health/{part}{suffix}"] for part in parts]
        assert record[f"health/committed{suffix}"] == sum(counts)
    assert math.isfinite(record["health/drift"])
    assert record["health/drift"] < 1e-3


@pytest.mark.parametrize(
    ("overrides", "start_from", "text"),
    [
        ({"environment.id": "Connect"}, "", "needs an environment of a single player"),
        ({"inference.mode": "server"}, "", "has no population"),
        ({}, "elsewhere", "Leave out --start_from"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path, overrides, start_from, text):
    config = populations.get_config("processes")
    config.update_from_flattened_dict(overrides)
    with pytest.raises(program.errors.BadInput, match=text):
        program.train(config, str(tmp_path / "run"), start_from=start_from)
    assert not (tmp_path / "run").exists()
