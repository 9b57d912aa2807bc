"""Actor hosts in metrics, messages, health.json and impala-status."""

import fcntl
import io
import json
import time

import pytest
import rich.console

from impala_mp import errors
from impala_mp.config import live_hyperparameters
from impala_mp.environments import factory
from impala_mp.monitoring import host_records, host_states, status
from impala_mp.networks import agent
from impala_mp.runtime import allocation
from tests.support import builders

_STATE = {
    **{"seat": 0, "node": "n0", "pid": 7, "state": "running", "incarnation": 1},
    **{"actors": 4, "actors_alive": 4, "actor_restarts": 0, "bad_data": 0},
    **{"steps_per_sec": 100.0, "wire_mb_per_sec": 0.5, "compression": 18.0},
    **{"reported": 3, "arrived": 2, "on_the_way": 1, "lost": 0, "lag": 1},
    **{"age_p50_secs": 0.01, "age_p99_secs": 0.02, "silent_secs": 0.0},
    **{"restarts": 0, "reason": ""},
}


def _state(seat, **changes):
    return {**_STATE, "seat": seat, "node": f"n{seat}", **changes}


@pytest.fixture
def shared(tmp_path):
    """Memory of a run with three hosts."""
    config = builders.config(**{"cluster.hosts": 3, "cluster.address": "auto"})
    return builders.shared(config, tmp_path)


def test_a_run_without_hosts_has_no_such_metrics(tmp_path):
    records = host_records.HostRecords([builders.shared(builders.config(), tmp_path)])
    assert (records.metrics(), records.news(), records.states()) == ({}, [], [])
    assert records.limit() == ""


def test_metrics_have_the_sums_of_all_hosts_in_trajectories(shared):
    records = host_records.HostRecords([shared])
    books = [shared.hosts.books(k, shared.rings.ring(2 + k)) for k in range(3)]
    books[0].begin()
    books[0].report(5)
    shared.rings.ring(2).announce(0)
    books[1].begin()
    books[1].report(4)
    books[1].begin()
    shared.hosts.publish([_state(0), _state(1, steps_per_sec=50.0), _state(2)])
    found = records.metrics()
    assert tuple(found) == host_records.METRICS
    each = shared.config.actors.environments
    sums = [found[f"hosts/{k}"] for k in ("reported", "arrived", "on_the_way", "lost")]
    assert sums == [9 * each, each, 4 * each, 4 * each]
    assert (found["hosts/alive"], found["hosts/steps_per_sec_min"]) == (3, 50.0)


def test_each_host_has_a_line_now_and_then(shared, tmp_path, monkeypatch):
    now, record = 100.0, {"agent_steps": 10, "updates": 2, "loss/total": 0.5}
    monkeypatch.setattr(time, "monotonic", lambda: now)
    records = host_records.HostRecords([shared])
    records.log(str(tmp_path), record)  # the receiver has not begun
    assert not (tmp_path / "hosts.jsonl").exists()
    shared.hosts.publish([_state(0), _state(1), _state(2)])
    for _ in range(3):
        records.log(str(tmp_path), record)
    now += host_records.LOG_SECS
    shared.hosts.publish([_state(0, state="lost"), _state(1), _state(2)])
    records.log(str(tmp_path), {**record, "updates": 5})
    text = (tmp_path / "hosts.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(x["updates"], x["seat"], x["state"]) for x in lines] == [
        *((2, 0, "running"), (2, 1, "running"), (2, 2, "running")),
        *((5, 0, "lost"), (5, 1, "running"), (5, 2, "running")),
    ]
    assert lines[0].keys() == {"time", "agent_steps", "updates", *_STATE}


def test_a_line_of_a_host_that_cannot_be_written_is_an_error_of_the_disk(
    shared, tmp_path
):
    shared.hosts.publish([_state(0), _state(1), _state(2)])
    records = host_records.HostRecords([shared])
    with pytest.raises(OSError, match="hosts.jsonl"):
        records.log(str(tmp_path / "gone"), {"agent_steps": 10, "updates": 2})


def test_a_sum_that_is_wrong_raises(shared):
    records = host_records.HostRecords([shared])
    shared.hosts.books(0, shared.rings.ring(2)).begin()
    shared.rings.ring(2).announce(0)  # a slot that was not reported
    with pytest.raises(RuntimeError, match="lost or counted twice"):
        records.metrics()


def test_each_death_is_reported_once_and_a_lost_host_in_capitals(shared):
    records = host_records.HostRecords([shared])
    dead = _state(1, restarts=1, reason="died", state="restarting")
    shared.hosts.publish([_state(0), dead, _state(2)])
    assert records.news() == ["Actor host 1 on n1 died; Ray starts another one."]
    assert records.news() == []
    lost = _state(2, state="lost", restarts=9, reason="died, and died 9 times")
    shared.hosts.publish([_state(0), dead, lost])
    (text,) = records.news()
    assert "THE RUN CONTINUES WITH 2 ACTOR HOSTS" in text
    assert records.news() == []


def test_a_slow_host_is_named(shared):
    records = host_records.HostRecords([shared])
    shared.hosts.publish([_state(0), _state(1), _state(2, steps_per_sec=40.0)])
    assert records.limit() == (
        "Actor host 2 on n2 makes 40 % of the median host's steps."
    )
    shared.hosts.publish([_state(0), _state(1), _state(2, steps_per_sec=60.0)])
    assert records.limit() == ""


def test_a_text_that_is_too_long_is_cut(shared):
    shared.hosts.publish([_state(k, reason="x" * 5000) for k in range(3)])
    assert all(256 < len(host["reason"]) < 1024 for host in shared.hosts.read())


def test_the_worst_hosts_come_first():
    states = [_state(k, steps_per_sec=k) for k in range(30)]
    states[25]["state"] = "lost"
    seats = [host["seat"] for host in host_states.worst(states)]
    assert seats == [25, *range(19)]


def _write(folder, hosts):
    process = {"role": "supervisor", "index": 0, "pid": 7, "incarnation": 0}
    process |= {"state": "running", "restarts": 0, "heartbeat_age_secs": 0.0}
    found = {"time": time.time(), "bottleneck": "", "stall": "", "hosts": hosts}
    found["processes"] = [{**process, "reason": ""}]
    (folder / "health.json").write_text(json.dumps(found))


def test_impala_status_has_a_line_for_each_host_and_the_sums(tmp_path):
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(tmp_path, [_state(0), _state(1, reason="died", restarts=2)])
        console = rich.console.Console(file=io.StringIO(), width=200)
        console.print(status.read(str(tmp_path)).table)
    text = console.file.getvalue()
    rows = [line.split() for line in text.splitlines() if "0.020 s" in line]
    assert [row[:3] for row in rows] == [["0", "n0", "running"], ["1", "n1", "running"]]
    (sums,) = (line.split() for line in text.splitlines() if line.startswith("all"))
    assert sums == ["all", "8/8", "200", "1.00", "4", "0"]
    assert "host 1: died" in text


@pytest.mark.parametrize("hosts", [7, [7], [{}], [{**_STATE, "arrived": "many"}]])
def test_damaged_states_are_refused(tmp_path, hosts):
    _write(tmp_path, hosts)
    with pytest.raises(errors.BadInput, match="another version"):
        status.read(str(tmp_path))


def test_the_sums_of_policies_have_the_columns_of_each(tmp_path):
    """Two policies: a slot of one has six trajectories, one of the other two."""
    chosen = []
    for name, columns in (("a", 6), ("b", 2)):
        config = builders.config(
            **{"cluster.hosts": 1, "cluster.address": "auto", "batch_size": columns},
            **{"actors.environments": columns},
        )
        environment = factory.probe(config.environment)
        live = live_hyperparameters.of_config(config)
        policy = agent.make(config, environment)
        chosen.append(allocation.Policy(name, config, live, environment, policy))
    policies = allocation.allocate(chosen, str(tmp_path), 2)
    records = host_records.HostRecords(policies)
    number = policies[0].topology.host_rings[0]
    for each, slots in zip(policies, (5, 3), strict=True):
        books = each.hosts.books(0, each.rings.ring(number), each.number)
        books.begin()
        books.report(slots)
        each.rings.ring(number).announce(0)
    policies[0].hosts.publish([_state(0)])
    found = records.metrics()
    sums = [found[f"hosts/{k}"] for k in ("reported", "arrived", "on_the_way", "lost")]
    assert sums == [5 * 6 + 3 * 2, 6 + 2, 4 * 6 + 2 * 2, 0]
