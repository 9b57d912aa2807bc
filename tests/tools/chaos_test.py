"""Faults on a real training, and the verdict on what it recovers to."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

import chaos
import harness
from faults import (
    cluster,
    deck,
    faulty_env,
    host_faults,
    run as run_lib,
    verdict,
    watch as watch_lib,
)
from impala_mp.storage import checkpoint, metrics

_TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
_COMMAND = [sys.executable, str(_TOOLS / "chaos.py")]


@pytest.fixture
def watch(tmp_path):
    return watch_lib.Watch(tmp_path)


@pytest.fixture(scope="module")
def rained(tmp_path_factory):
    """The folder of a run under a few faults, and what the tool said of it."""
    folder = tmp_path_factory.mktemp("chaos") / "base"
    flags = ["--minutes=0.15", "--seed=0", "--recovery_steps=150000", "--json"]
    done = subprocess.run(
        [*_COMMAND, *flags, f"--workdir={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return folder, done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.integration
def test_a_run_recovers_from_what_happens_to_it(rained):
    _, code, report = rained
    assert _without_times(report["reasons"]) == []
    assert code == (report["verdict"] != "pass") == bool(report["reasons"])
    assert {"kill_learner", "kill_actor"} <= {*report["faults"]}
    assert report["recoveries"] >= 2
    assert {*report["recovery_secs"]} == {"actor", "learner"}
    assert report["final_return"] >= report["target"]


def _without_times(reasons):
    """A recovery takes long when something else keeps this machine busy."""
    return [reason for reason in reasons if "median recovery" not in reason]


def _spoil(folder):
    """Parameters that have forgotten everything, a lost trajectory, steps undone."""
    state = checkpoint.load_newest(str(folder / "checkpoints"), report=print)
    for tensor in state["learner"]["parameters"].values():
        torch.nn.init.zeros_(tensor)
    update = state["learner"]["updates"] + 1
    checkpoint.save(str(folder / "checkpoints"), update, state)
    last = metrics.read(str(folder))[-1]
    last["health/committed"] += 1
    last["agent_steps"] -= 1
    last["health/mixed_unrolls"] = 1
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(last) + "\n")
    (folder / "health.json.writing").touch()
    (folder / "league").mkdir()
    (folder / "league" / "7.pt").write_bytes(b"half")
    (folder / "logs" / "actor-9.log").write_text("version 7 of the parameters is torn")


@pytest.mark.integration
def test_a_bad_state_after_recovery_fails(rained, tmp_path):
    base, _, report = rained
    shutil.copytree(base / "run", tmp_path / "run")
    _spoil(tmp_path / "run")
    found = verdict.examine(tmp_path / "run")
    left = {**report["leftovers"], "temporary_files": found.pop("temporary_files")}
    reasons = verdict.judge({**report, **found, "leftovers": left}, [])
    reasons = _without_times(reasons)
    about = {reason.split(":")[0] for reason in reasons}
    assert about >= {
        "torn_reads",
        "identity_violations",
        "counters_backwards",
        "mixed_unrolls",
        "damaged_snapshots",
        "temporary_files",
    }
    assert any(reason.startswith("the final return is") for reason in reasons)
    assert len(reasons) == 7


@pytest.mark.integration
def test_few_faults_and_slow_recoveries_fail(rained):
    _, _, report = rained
    quick = {"actor": {"median": 0.99}, "learner": {"median": 9.9}}
    slow = {"actor": {"median": 1.0}, "learner": {"median": 10.0}}

    def reasons(**changes):
        full = {**report, "recovery_secs": quick, **changes}
        return verdict.judge(full, [])

    assert reasons() == []
    assert reasons(minutes=10.0, faults_in_all=200) == []
    assert "199 faults, where 200" in reasons(minutes=10.0, faults_in_all=199)[0]
    assert "0 faults, where 1 " in reasons(minutes=0.01, faults_in_all=0)[0]
    assert reasons(only=["kill_actor"], minutes=10.0, faults_in_all=1) == []
    actor, learner = reasons(recovery_secs=slow)
    assert "killed actor took 1.0 s" in actor
    assert "killed learner took 10.0 s" in learner
    assert reasons(recovery_secs={}) == []  # nothing was killed


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--minutes=0", "is not a number above 0"),
        ("--learners=2", "at most the number of policies, which is 1 in catch"),
        ("--hosts=101", "must be at most 100"),
        ("--hosts=1 --env=league", "does not go with --env=league"),
        ("--only=kill_actor,kill_host", "no 'kill_host', for it is none of kill_actor"),
        ("--only=kill_inference", "for each actor infers for itself: an odd --seed"),
    ],
)
def test_bad_arguments_are_a_sentence(flag, sentence):
    done = subprocess.run([*_COMMAND, *flag.split()], capture_output=True, text=True)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def _dealt(*only, problem=""):
    """The kinds that are dealt on a machine whose disk has this problem."""
    options = types.SimpleNamespace(env="catch", seed=0, hosts=0, only=[*only])
    run = types.SimpleNamespace(disk=types.SimpleNamespace(problem=problem))
    return deck.dealt(options, run)[0]


def test_faults_of_some_kinds_only():
    assert {"kill_actor", "fill_disk", "stop_run"} <= {*_dealt()}
    assert {*_dealt("kill_actor", "fill_disk")} == {"kill_actor", "fill_disk"}
    assert "fill_disk" not in _dealt(problem="cannot mount")
    with pytest.raises(run_lib.RunFailedError, match="no fill_disk: cannot mount"):
        _dealt("kill_actor", "fill_disk", problem="cannot mount")


@pytest.mark.parametrize("alone", [False, True])
def test_each_fault_waits_for_the_recovery_if_it_is_to_be_alone(monkeypatch, alone):
    happened = []
    run = types.SimpleNamespace(
        settle=lambda: happened.append("settled"), until=lambda find, what: None
    )
    rain = chaos.Chaos(run, lambda text: None, alone)
    monkeypatch.setattr(rain, "_kill", lambda what, fault: happened.append(what))
    rain.rain(iter([deck.Fault("kill_actor", 0, 0.0, 0.0)] * 2), 1000.0)
    assert happened == (["settled", "actor"] if alone else ["actor"]) * 2


def test_the_longest_pause_of_the_learner(watch):
    for updates, secs in [(1, 1.0), (2, 1.5), (2, 1.9), (3, 2.9), (3, 3.0), (4, 3.5)]:
        watch._measure_pause({"updates": updates, "time_secs": secs})
    assert watch.learner_pause_secs == pytest.approx(1.4)


def _of_two_policies(**changes):
    """A record of two policies; changes: counts of the second."""
    counts = {name: 0 for name in harness.COUNTERS}
    counts |= {"health/committed": 6, "health/learned": 5, "health/in_flight": 1}
    second = {f"{name}/prey": changes.get(name, n) for name, n in counts.items()}
    return counts | {f"{name}/hunters": n for name, n in counts.items()} | second


def test_identities_and_counters_are_those_of_each_policy():
    fine = _of_two_policies()
    assert harness.policies(fine) == ["hunters", "prey"]
    assert harness.identity_holds(fine)
    assert not harness.is_backwards(fine, _of_two_policies(agent_steps=1))
    lost = _of_two_policies(**{"health/learned": 4})
    assert not harness.identity_holds(lost)
    assert harness.is_backwards(fine, lost)


def test_a_game_commits_the_faults_of_its_process(tmp_path):
    control = tmp_path / "fault"
    game = faulty_env.FaultyGame("mpe2.simple_spread_v3:parallel_env", str(control))
    game.reset(seed=0)
    still = dict.fromkeys(game.possible_agents, 0)
    order = tmp_path / f"fault.{os.getpid()}"

    def step(fault):
        order.write_text(fault)
        observations, rewards, *_ = game.step(still)
        assert not order.exists()
        return [*rewards.values(), *np.concatenate([*observations.values()])]

    assert np.isfinite(step("")).all()
    assert np.isnan(step("nan_reward")).any()
    assert np.isnan(step("nan_observation")).any()
    with pytest.raises(RuntimeError, match="raises"):
        step("raises")


def test_boards_commit_the_faults_of_their_process(tmp_path):
    boards = faulty_env.FaultyBoards(4, str(tmp_path / "fault"))
    boards.reset(seed=0)
    order = tmp_path / f"fault.{os.getpid()}"

    def reward(fault):
        order.write_text(fault)
        rows = boards.step(np.zeros((4, 2), int))
        assert not order.exists()
        return rows.reward

    assert np.isfinite(reward("")).all()
    assert np.isnan(reward("nan_reward")).any()
    with pytest.raises(RuntimeError, match="raises"):
        reward("raises")


def test_records_are_read_once_whatever_becomes_of_the_file(
    watch, tmp_path, monkeypatch
):
    """A rewind cuts the file off, and it may have grown again before the next look."""
    path, read = tmp_path / "metrics.jsonl", []
    monkeypatch.setattr(watch, "_take", lambda record, _: read.append(record["n"]))

    def look(*numbers, rest=""):
        with open(path, "a") as file:
            lines = (json.dumps({"n": n, "x": "y" * n}) + "\n" for n in numbers)
            file.write("".join(lines) + rest)
        read.clear()
        watch.read_records()
        return read

    assert look(1, 2, 3, rest='{"n"') == [1, 2, 3]
    first = path.read_text().index("\n") + 1
    os.truncate(path, first)
    assert look(7, 9, 11) == [1, 7, 9, 11]
    assert look() == []
    os.truncate(path, first)
    assert look() == [1]
    assert look(5) == [5]


@pytest.mark.parametrize(
    ("counts", "growth"),
    [
        ([30] * 3 + [36] * 97 + [30] * 2 + [36] * 98, 0),  # a child is missing
        ([36 + look // 40 for look in range(400)], 9),  # one leaks each restart
    ],
)
def test_growth_of_open_files(watch, monkeypatch, counts, growth):
    watch._recorders.add(watch.supervisor)
    for count in counts:
        monkeypatch.setattr(os, "listdir", lambda _, count=count: [""] * count)
        watch._count_descriptors()
    assert watch.descriptors() == growth


def test_a_run_without_a_look_at_open_files_has_not_grown(watch):
    assert watch.descriptors() == 0


def _host(incarnation, arrived, state="running"):
    return {"seat": 0, "incarnation": incarnation, "arrived": arrived, "state": state}


@pytest.mark.parametrize(
    ("dies", "seen", "healed"),
    [
        (True, [(1, 9), (1, 10)], False),  # what the old process had sent
        (True, [(2, 9, "starting"), (2, 9)], False),
        (True, [(2, 9), (2, 10)], True),
        (False, [(1, 9), (1, 10)], True),  # a link was cut, and nothing died
        (False, [(1, 9, "unreachable"), (1, 10)], False),
        (False, [(2, 0), (2, 1)], True),  # the node had died in between
    ],
)
def test_a_host_is_back_when_its_slots_arrive_again(watch, dies, seen, healed):
    wound = host_faults.HostWound("host", _host(1, 8), dies=dies)
    found = []
    for each in seen:
        watch.hosts = [_host(*each)]
        found.append(wound.healed(watch))
    assert found == [False] * (len(seen) - 1) + [healed]


def test_a_cut_link_cannot_have_healed_before_it_is_back(watch):
    wound = host_faults.HostWound("link", _host(1, 8), dies=False, begins=1e12)
    for arrived in (9, 10):
        watch.hosts = [_host(1, arrived)]
        assert not wound.healed(watch)


def test_what_hosts_report_is_accounted_for():
    names = ("committed", "learned", "discarded", "in_flight")
    record = {f"health/{name}": 0 for name in names}
    record |= {"hosts/reported": 9, "hosts/arrived": 6}
    record |= {"hosts/on_the_way": 2, "hosts/lost": 1}
    assert harness.identity_holds(record)
    assert not harness.identity_holds(record | {"hosts/lost": 0})


def test_a_user_without_rights_cannot_have_a_cluster(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "need root" in cluster.problem()


def test_every_fault_of_a_host_can_be_committed():
    for kind in host_faults.DECK:
        verb, _, what = kind.partition("_")
        if what in host_faults.VICTIMS:
            assert callable(getattr(host_faults.HostFaults, f"_{verb}_{what}"))
        else:
            assert what == "receiver"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/x/ray/core/src/ray/raylet/raylet", "--a"], True),
        (["ray::IDLE"], True),
        (["ray::RuntimeEnvAgent"], True),
        (["python", "-u", "/x/ray/autoscaler/_private/monitor.py"], True),
        (["python", "-m", "ray.scripts.scripts", "start"], True),
        (["ray::Host"], False),
        (["python", "-B", "-c", "sys.path[:] = ['/x/ray/_private/']"], False),
    ],
)
def test_what_is_left_of_hosts_is_not_rays_own(monkeypatch, command, expected):
    line = b"".join(word.encode() + b"\0" for word in command)
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda self: line)
    assert cluster.is_rays_own(1) == expected
