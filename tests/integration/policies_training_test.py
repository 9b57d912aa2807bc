"""Several policies: each learns by its own algorithm, and nothing is lost or mixed."""

import json
import os
import signal
import subprocess
import sys
from math import nan

import pytest

import harness
from impala_mp.cli import export as export_command
from impala_mp.evaluation import evaluate
from impala_mp.monitoring import live_control, policy_records
from impala_mp.runtime import program
from impala_mp.storage import checkpoint, mailbox, metrics, workdir
from impala_mp.workers import learner_loop
from tests.support import lockstep_runs, policy_parts, runs, two_policies

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_without_pictures")]
_fork_server = runs.fork_server


def _train(path, **overrides):
    program.train(policy_parts.config(**overrides), str(path))
    folder = workdir.Workdir(str(path))
    return [
        checkpoint.load_newest(folder.checkpoints_of(name), print)
        for name in folder.names_of_policies()
    ]


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, monkeypatch):
    """It is stopped in the middle: a policy that is finished learns no more."""
    whole, step, steps = _train(tmp_path / "whole"), learner_loop.LearnerLoop.step, []

    def stopped(self):
        step(self)
        steps.append(self)
        if len(steps) in (9, 13, 20):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(learner_loop.LearnerLoop, "step", stopped)
    for _ in range(4):
        parts = _train(tmp_path / "parts")
    for mine, theirs in zip(parts, whole, strict=True):
        for key in ("learner", "episodes", "counts"):
            lockstep_runs.assert_same(mine[key], theirs[key], key)
    lockstep_runs.assert_same(parts[0]["actors"], whole[0]["actors"])
    assert min(each["learner"]["updates"] for each in whole) >= 18


def test_policies_begin_with_different_parameters(tmp_path):
    config = policy_parts.config()
    config.policies = {}
    one, other = _parts(config, tmp_path)[2]
    pairs = zip(
        one._learner.agent.network.parameters(),
        other._learner.agent.network.parameters(),
        strict=True,
    )
    assert any((a != b).any() for a, b in pairs)


def _parts(config, folder):
    """The shared memory of each policy, one actor and the loops, in this process."""
    shared = policy_parts.shared(config, folder)
    return shared, policy_parts.actor(shared), policy_parts.loops(shared)


def test_an_actor_killed_between_two_commits_leaves_both_identities(tmp_path):
    """One policy has the unroll and the other has not."""
    shared, one, loops = _parts(policy_parts.config(), tmp_path)
    for loop in loops:
        loop.restore(print)
    commit, killed = type(one.parties[1]).commit, []

    class Killed(Exception):
        pass

    def dies(self, *args):
        if self is one.parties[1] and len(killed) % 3 == 0:
            killed.append(1)
            raise Killed
        killed.append(0)
        commit(self, *args)

    type(one.parties[1]).commit, deaths = dies, 0
    try:
        for incarnation in range(1, 101):
            if one.has_space():
                one.fetch()
                try:
                    one.guarded_unroll()
                except Killed:
                    deaths += 1
                    one.close()
                    one = policy_parts.actor(shared, incarnation)
            for loop in loops:
                loop._accounts.counts()  # raises where the sum is wrong
                loop.turn()
    finally:
        type(one.parties[1]).commit = commit
        one.close()
    assert deaths > 10
    first, second = (loop._accounts.counts()["committed"] for loop in loops)
    assert first > second


def _start(start, *flags):
    endless = "--config.total_agent_steps=10_000_000"
    run = start(endless, *flags, config=f"{two_policies.__file__}:processes")
    run.until(lambda: run.records()[-1]["updates"] > 60)
    return run


def _kill(run, role):
    """Kills a process, and waits until both policies have learned more."""
    os.kill(run.until_running(role)[0]["pid"], signal.SIGKILL)
    run.until(lambda: "restart in" in run.text())
    run.until_running(role)
    before = run.records()[-1]["updates"]
    run.until(lambda: run.records()[-1]["updates"] > before + 60)


def _check_end(path):
    """Checks that nothing is lost or mixed up."""
    last = metrics.read(path)[-1]
    assert {*harness.policies(last)} == {"player_0", "player_1"}
    assert harness.identity_holds(last)
    assert last["health/drift"] < 1e-3
    assert last["health/mixed_unrolls"] == 0


def test_one_server_infers_for_all_policies_and_is_replaced(start, tmp_path):
    run = _start(start, "--config.inference.mode=server")
    _kill(run, "inference")
    run.stop()
    _check_end(str(tmp_path / "run"))
    assert "2 the inference server's" in run.text()


def test_policies_train_in_processes_and_survive_their_learner(start, tmp_path):
    run = _start(start)
    _kill(run, "learner")
    path = str(tmp_path / "run")
    lines = mailbox.ask(path, {"set": {"player_1/epsilon": 0.5}}, 20.0)["lines"]
    assert lines == ["player_1/epsilon changes from 0 to 0.5 (impala-ctl)."]
    run.until(lambda: run.records()[-1]["live/epsilon/player_1"] == 0.5)
    assert run.records()[-1]["live/epsilon/player_0"] == 0.0
    run.stop()
    _check_end(path)
    found = evaluate.evaluate(path, 4)
    assert {"mean/player_0", "mean/player_1"} <= found.keys()


def test_a_finished_policy_does_not_stop_the_other(tmp_path, monkeypatch):
    """Its trajectories are discarded from then on, and its counts go on."""

    def finished(self):
        return self._learner.updates >= (5 if self.control.policy == 0 else 30)

    monkeypatch.setattr(learner_loop.LearnerLoop, "finished", property(finished))
    first, second = _train(tmp_path, total_agent_steps=100_000)
    assert (first["learner"]["updates"], second["learner"]["updates"]) == (5, 30)
    counts = first["counts"]
    assert counts["discarded"] >= 20 * 4
    assert counts["committed"] == counts["learned"] + counts["discarded"]
    assert counts["committed"] == second["counts"]["committed"]
    last = metrics.read(str(tmp_path))[-1]
    assert last["health/discarded/player_0"] == counts["discarded"]


def test_one_of_several_policies_is_exported(tmp_path, capsys, monkeypatch):
    _train(tmp_path / "run", total_agent_steps=2 * 112)
    path = str(tmp_path / "run")
    argv = ["impala-export", path]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as stop:
        export_command.main()
    assert stop.value.code == 2
    assert "has the policies player_0, player_1" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*argv, "--policy=player_2"])
    with pytest.raises(SystemExit):
        export_command.main()
    assert "has no policy 'player_2'" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*argv, "--policy=player_1"])
    export_command.main()
    assert json.loads((tmp_path / "run" / "player_1.pt2.json").read_text())


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--config.policies.player_0.batch_size=0"], "cannot be automatic"),
        (["--config.policies.items.algorithm=dqn"], "cannot be called 'items'"),
        (["--start_from=elsewhere"], "elsewhere has no config.json"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path, flags, text):
    done = subprocess.run(
        [sys.executable, "-m", "impala_mp.cli.train", f"--workdir={tmp_path / 'run'}"]
        + [f"--config={two_policies.__file__}:processes", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert text in done.stderr
    assert not (tmp_path / "run").exists()


def test_live_values_of_one_policy_or_of_all(tmp_path):
    shared, one, _ = _parts(policy_parts.config(), tmp_path)
    one.close()
    said, values = [], [live_control.of(each) for each in shared]
    control = live_control.LiveControl(values, str(tmp_path), said.append)
    control._answer({"set": {"epsilon": 0.25, "player_0/entropy_cost": 0.5}})
    assert [each.control.get("epsilon") for each in shared] == [0.25, 0.25]
    assert shared[0].control.get("entropy_cost") == 0.5
    assert shared[1].control.get("entropy_cost") != 0.5
    with pytest.raises(live_control.errors.BadInput, match="player_1/entropy_cost has"):
        control._answer({"set": {"player_1/entropy_cost": 0.5}})
    with pytest.raises(live_control.errors.BadInput, match="'player_1/epsilon'"):
        control._answer({"set": {"player_2/epsilon": 0.5}})
    assert len(control._answer({"get": ["player_1/epsilon"]})) == 1


def test_records_are_merged_once_all_policies_have_one(tmp_path):
    shared, one, loops = _parts(policy_parts.config(), tmp_path)
    one.close()
    records = policy_records.PolicyRecords(shared)
    loops[0].restore(print)
    assert records.read() == []
    loops[1].restore(print)
    ((merged, _),) = records.read()
    assert merged["agent_steps"] == 0
    assert {"agent_steps/player_0", "live/epsilon/player_1"} <= merged.keys()
    assert records.read() == []
    # One has learned nothing yet: its means are no numbers, and count for nothing.
    for policy, values in ((0, (1.0, 3.0)), (1, (nan, nan))):
        for secs, value in enumerate(values):
            row = dict.fromkeys(shared[policy].learner_record._names, 0.0)
            row |= {"loss/total": value, "health/learned": 2.0, "time_secs": secs}
            shared[policy].learner_record.write(row)
    both = records.read()
    assert [each["loss/total"] for each, _ in both] == [1.0, 3.0]
    assert both[-1][0]["health/learned"] == 4.0
    # The process dies after a record of policy 0, and resumes at an earlier time.
    for policy, incarnation, secs in ((0, 0, 9), (0, 1, 5), (1, 1, 5)):
        row = dict.fromkeys(shared[policy].learner_record._names, 0.0)
        row |= {"restored/incarnation": incarnation, "time_secs": secs}
        shared[policy].learner_record.write(row)
    *_, (last, _) = records.read()
    assert (last["restored/incarnation"], last["time_secs"]) == (1, 5)
