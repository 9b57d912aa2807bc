"""Real runs with actor hosts on a Ray cluster of this machine."""

import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

_MISSING = any(importlib.util.find_spec(name) is None for name in ("ray", "zstandard"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_MISSING, reason="the extra `cluster` is missing"),
]
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SECS = 300.0  # for anything to happen, on a busy machine
_SLOT = 32  # trajectories


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs; tests add nodes. It has a token."""
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_health_check_initial_delay_ms": "1000",
        "PYTHONPATH": str(_ROOT),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        from ray import cluster_utils  # it reads the token's mode when it is imported

        made = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20},
        )
        yield made
        made.shutdown()


def _add(cluster, **options):
    return cluster.add_node(
        num_cpus=1, object_store_memory=100 * 2**20, wait=False, **options
    )


class _Run:
    """A run of Catch in a process."""

    def __init__(self, cluster, path, *flags):
        self.path = path
        command = [sys.executable, "-m", "impala_mp.cli.train"]
        command += [f"--config={_ROOT / 'experiments' / 'catch.py'}"]
        command += [f"--workdir={path}", f"--config.cluster.address={cluster.address}"]
        command += ["--config.actors.count=1", "--config.cluster.cores=1"]
        command += ["--config.evaluation.during_training=False", *flags]
        self.command = command
        self.output = open(f"{path}.out", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdout=self.output, stderr=subprocess.STDOUT, cwd=_ROOT
        )

    def text(self):
        return pathlib.Path(f"{self.path}.out").read_text()

    def health(self):
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.path / "health.json").read_text())
        return {}

    def hosts(self):
        return self.health().get("hosts", [])

    def wait(self, condition, what):
        """Returns the hosts once `condition` holds for them."""
        end = time.monotonic() + _SECS
        while time.monotonic() < end:
            hosts = self.hosts()
            if hosts and condition(hosts):
                return hosts
            assert self.process.poll() is None, self.text()
            time.sleep(0.2)
        raise AssertionError(f"{what}: {self.hosts()} {self.text()[-2000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(_SECS) == 0, self.text()[-3000:]

    def records(self):
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.output.close()


def _remove_nodes(cluster):
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def start(cluster, tmp_path):
    with contextlib.ExitStack() as at_end:
        at_end.callback(_remove_nodes, cluster)

        def begin(*flags):
            run = _Run(cluster, tmp_path / "run", *flags)
            at_end.callback(run.close)
            return run

        yield begin


def _states_of_hosts(cluster):
    """Returns the states that Ray has of all hosts, once none is alive."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    try:
        end, states = time.monotonic() + 60.0, {"ALIVE"}
        while states != {"DEAD"} and time.monotonic() < end:
            time.sleep(0.2)
            states = {a["State"] for a in ray._private.state.actors().values()}
        return states
    finally:
        ray.shutdown()


def _wait_until_gone(pids):
    end = time.monotonic() + 60.0
    left = list(pids)
    while left and time.monotonic() < end:
        left = [pid for pid in left if _lives(pid)]
        time.sleep(0.2)
    assert not left


def _lives(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"


def _alive(hosts, seat):
    host = hosts[seat]
    return host["state"] in ("running", "waiting_for_slot") and host["actors_alive"]


def _sums_are_exact(run):
    records = run.records()
    assert records
    for record in records:
        parts = ("hosts/arrived", "hosts/on_the_way", "hosts/lost")
        assert record["hosts/reported"] == sum(record[name] for name in parts)
        parts = ("health/learned", "health/discarded", "health/in_flight")
        assert record["health/committed"] == sum(record[name] for name in parts)
        assert record["health/drift_alarms"] == record["health/mixed_unrolls"] == 0
    return records[-1]


def test_hosts_come_die_and_come_back_and_no_trajectory_is_lost_unbooked(
    cluster, start
):
    """A node joins; a process, a node and the receiver are killed."""
    node = _add(cluster)
    run = start("--config.cluster.hosts=2", "--config.total_agent_steps=1_000_000_000")
    hosts = run.wait(lambda h: any(x["arrived"] > 5 for x in h), "the first host")
    first = max((0, 1), key=lambda seat: hosts[seat]["arrived"])
    other = 1 - first
    assert hosts[other]["state"] == "pending"

    _add(cluster)
    run.wait(lambda h: h[other]["arrived"] > 5, "a host on a node that joined")

    pid = run.hosts()[first]["pid"]
    os.kill(pid, signal.SIGKILL)
    before = run.wait(lambda h: h[first]["incarnation"] == 2, "a new process")
    run.wait(lambda h: h[first]["arrived"] > before[first]["arrived"] + 5, "its slots")

    (receiver,) = (
        each["pid"] for each in run.health()["processes"] if each["role"] == "receiver"
    )
    before = run.hosts()
    os.kill(receiver, signal.SIGKILL)
    run.wait(
        lambda h: all(h[k]["arrived"] > before[k]["arrived"] + 3 for k in (0, 1)),
        "slots after the receiver was killed",
    )
    assert [h["incarnation"] for h in run.hosts()] == [h["incarnation"] for h in before]

    cluster.remove_node(node, allow_graceful=False)
    lost = run.wait(
        lambda h: not all(_alive(h, k) for k in (0, 1)), "the death of a node"
    )
    _add(cluster)
    run.wait(
        lambda h: all(
            _alive(h, k) and h[k]["arrived"] > lost[k]["arrived"] for k in (0, 1)
        ),
        "a host on another node",
    )
    pids = [host["pid"] for host in run.hosts()]
    run.stop()
    _wait_until_gone(pids)
    last = _sums_are_exact(run)
    assert last["episode/return_mean"] > 0.5
    assert last["hosts/arrived"] > 20 * _SLOT


def test_hosts_feed_all_ranks_and_go_on_when_the_ranks_are_restarted(cluster, start):
    run = start(
        *("--config.cluster.hosts=2", "--config.actors.count=2"),
        *("--config.learner.ranks=2", "--config.learner.threads=1"),
        *("--config.batch_size=128", "--config.total_agent_steps=1_000_000_000"),
    )
    _add(cluster)
    _add(cluster)
    run.wait(lambda h: all(x["arrived"] > 20 for x in h), "slots of both hosts")
    before = run.hosts()
    processes = run.health()["processes"]
    ranks, actors = (
        [each["pid"] for each in processes if each["role"] == role]
        for role in ("learner", "actor")
    )
    os.kill(ranks[1], signal.SIGKILL)
    run.wait(
        lambda h: all(h[k]["arrived"] > before[k]["arrived"] + 50 for k in (0, 1)),
        "slots after a rank was killed",
    )
    # Without actors here each rank has the slots of its host alone.
    for pid in actors:
        os.kill(pid, signal.SIGSTOP)
    before = run.hosts()
    run.wait(
        lambda h: all(h[k]["arrived"] > before[k]["arrived"] + 50 for k in (0, 1)),
        "slots while the actors here are frozen",
    )
    for pid in actors:
        os.kill(pid, signal.SIGCONT)
    assert [h["incarnation"] for h in run.hosts()] == [h["incarnation"] for h in before]
    run.stop()
    last = _sums_are_exact(run)
    assert last["health/restarts"] >= 2
    assert last["episode/return_mean"] > 0.5


def test_hosts_feed_all_policies_and_a_killed_one_comes_back(cluster, start):
    run = start(
        *("--config.cluster.hosts=1", "--config.learner.processes=2"),
        "--config.environment.id=tests.support.rock_paper_scissors:RockPaperScissors",
        *("--config.environment.sharing=each", "--config.learner.threads=1"),
        "--config.total_agent_steps=1_000_000_000",
    )
    _add(cluster)
    (host,) = run.wait(lambda h: h[0]["arrived"] > 20, "slots")
    os.kill(host["pid"], signal.SIGKILL)
    before = run.wait(lambda h: h[0]["incarnation"] == 2, "a new process")
    # More than the rings hold: the learners of both policies learn them.
    run.wait(lambda h: h[0]["arrived"] > before[0]["arrived"] + 100, "its slots")
    command = [each for each in run.command if not each.startswith("--workdir")]
    checked = subprocess.run(
        [*command, "--check"], capture_output=True, text=True, cwd=_ROOT
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "the same versions, layouts and environment, and sends" in checked.stdout
    for policy in ("player_0", "player_1"):
        assert f"a slot of a new policy '{policy}'" in checked.stdout
    assert run.hosts()[0]["lag"] < run.records()[-1]["updates"] // 2
    run.stop()
    last = _sums_are_exact(run)
    for policy in ("player_0", "player_1"):
        assert last[f"health/learned/{policy}"] > 100 * _SLOT
    assert last["hosts/arrived"] > 100 * _SLOT


def test_a_host_leaves_a_node_that_is_to_end_and_nothing_is_lost(cluster, start):
    """A spot machine gets a notice, and the autoscaler drains its node."""
    node = _add(cluster)
    run = start("--config.cluster.hosts=1", "--config.total_agent_steps=1_000_000_000")
    run.wait(lambda h: h[0]["arrived"] > 5, "the host")
    _add(cluster)
    drain = ["drain-node", f"--address={cluster.address}", f"--node-id={node.node_id}"]
    drain += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=notice"]
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *drain]
        + ["--deadline-remaining-seconds=600"],
        check=True,
    )
    moved = run.wait(lambda h: h[0]["incarnation"] == 2, "the host elsewhere")
    (host,) = run.wait(lambda h: h[0]["arrived"] > moved[0]["arrived"] + 5, "its slots")
    assert (host["restarts"], host["lost"], host["reason"]) == (0, 0, "")
    run.stop()
    assert _sums_are_exact(run)["hosts/lost"] == 0


def test_an_environment_that_a_host_cannot_make_ends_the_run_with_a_sentence(
    cluster, start
):
    _add(cluster)
    run = start(
        "--config.cluster.hosts=1",
        "--config.environment.id=tests.support.host_environments:OnlyHere",
    )
    assert run.process.wait(_SECS) == 2, run.text()
    assert "host 0" in run.text()
    assert "not on this machine" in run.text()


def test_hosts_end_when_the_machine_of_the_learner_is_gone(cluster, start):
    _add(cluster)
    run = start(
        "--config.cluster.hosts=1",
        "--config.cluster.orphan_secs=5",
        "--config.total_agent_steps=1_000_000_000",
    )
    (host,) = run.wait(lambda h: h[0]["arrived"] > 5, "the host")
    run.process.kill()
    _wait_until_gone([host["pid"]])
    assert _states_of_hosts(cluster) == {"DEAD"}  # none is started again


def test_a_wrong_token_is_refused_with_a_sentence(start, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 32)
    begun = time.monotonic()
    run = start("--config.cluster.hosts=1")
    assert run.process.wait(_SECS) == 2
    assert "token" in run.text()
    assert time.monotonic() - begun < 60.0
