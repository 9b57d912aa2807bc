"""What is refused of a cluster before a run, and that a run without one needs none."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

from impala_mp import errors
from impala_mp.config import validation
from impala_mp.runtime import cluster_check, ray_probe, resources
from tests.support import builders

_PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/guides/cluster.md"
_BY_VALUE = f"by_value_{'0' * 32}"


def _config(**overrides):
    fields = {"cluster.hosts": 2, "cluster.address": "auto", **overrides}
    return builders.config(**fields)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster as `ray_probe` finds it."""
    nodes = [{"ip": "10.0.0.1", "cpus": 4}, {"ip": "10.0.0.2", "cpus": 8}]
    found = {"address": "10.0.0.1:6379", "nodes": nodes, "ray": "2.60.0"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    def run(*arguments, **options):
        text = f"noise\n{ray_probe.MARK}{json.dumps(found)}\n"
        return subprocess.CompletedProcess(arguments, 0, text)

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_a_cluster_is_described(cluster):
    (text,) = cluster_check.check(_config(**{"cluster.cores": 3}), 2)
    assert "2 nodes and 12 CPUs. Up to 2 actor hosts with 3 actors each." in text


def test_each_node_is_compared_with_this_machine(cluster):
    here = (("impala_mp", "1"), ("torch", "2"))
    first, second = cluster["nodes"]
    first |= {"facts": dict(here), "mb_per_sec": 200.0}
    second |= {"facts": {**dict(here), "torch": "3"}, "mb_per_sec": 100.0}
    cluster["nodes"].append({"ip": "10.0.0.3", "cpus": 0})
    cluster["nodes"].append({"ip": "10.0.0.4", "cpus": 1, "facts": {"error": "gone"}})
    lines = cluster_check.check_nodes(_config(), here)
    assert [is_sound for _, is_sound in lines] == [True, False, True, False]
    assert "sends 200 MB/s" in lines[0][0]
    assert "torch is 3, and 2 where the learner is" in lines[1][0]


def test_much_lag_is_announced(cluster):
    config = _config(**{"cluster.cores": 100})
    assert "policy lag" in cluster_check.check(config, 2)[0]


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray://10.0.0.1:10001"])
def test_an_address_without_a_token_is_refused(cluster, monkeypatch, address):
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(errors.BadInput, match="RAY_AUTH_MODE=token"):
        cluster_check.check(_config(**{"cluster.address": address}), 2)
    allowed = _config(**{"cluster.address": address, "cluster.insecure": True})
    assert cluster_check.check(allowed, 2)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:6379", True),
        ("localhost:6379", True),
        ("[::1]:6379", True),
        ("10.0.0.1:6379", False),
        ("host.example:6379", False),
    ],
)
def test_loopback_addresses_are_known(address, loopback):
    assert cluster_check.is_loopback(address) == loopback


def test_a_cluster_that_does_not_answer_is_refused(cluster, monkeypatch):
    def late(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(errors.BadInput, match="no answer within 25 s"):
        cluster_check.check(_config(), 2)


def test_the_words_of_ray_are_in_the_refusal(cluster):
    cluster.clear()
    cluster["error"] = "RuntimeError: Version mismatch"
    with pytest.raises(errors.BadInput, match="Version mismatch.*same versions of Ray"):
        cluster_check.check(_config(), 2)


def test_a_missing_extra_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.BadInput, match=r"impala_mp\[cluster\]"):
        cluster_check.check(_config(), 2)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"cluster.address": ""}, "cluster.address is empty"),
        ({"runtime.mode": "lockstep"}, "runtime.mode=processes"),
        (
            {"inference.mode": "server", "actors.environments": 2},
            "inference.mode=actor",
        ),
        ({"health.min_hosts": 3}, "at most cluster.hosts"),
        ({"cluster.hosts": 0}, "has no effect without cluster.hosts"),
        ({"environment.id": f"{_BY_VALUE}:Game"}, "by value, which environment.id is"),
        ({"network.torso": f"{_BY_VALUE}:torso"}, "which network.torso is"),
        ({"environment.kwargs": {"of": f"{_BY_VALUE}:Game"}}, "environment.kwargs.of"),
    ],
)
def test_a_config_that_cannot_run_is_refused(overrides, words):
    with pytest.raises(errors.BadInput, match=words):
        validation.validate(_config(**overrides), 2)


def test_a_run_without_a_cluster_imports_neither_ray_nor_zstandard():
    code = (
        "import sys, impala_mp.cli.train, impala_mp.runtime.preload,"
        " impala_mp.runtime.program, impala_mp.runtime.preflight\n"
        "assert not {'ray', 'zstandard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_engines_process_of_a_host_imports_no_torch():
    pytest.importorskip("ray", reason="the extra `cluster` is missing")
    code = (
        "import sys, impala_mp.runtime.ray_engine, impala_mp.runtime.host_relay\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (0, "those of 1 actor."),
        (4, "those of 1 actor and 2 hosts."),
        (3, "1 or 2 hosts. Those with fewer hold the others back. Set config.cluster"),
    ],
)
def test_the_hosts_of_a_rank_are_told(hosts, words):
    config = _config(**{"cluster.hosts": hosts, "learner.ranks": 2})
    assert words in resources.explain_ranks(config)


def _blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", _PAGE.read_text(), re.M | re.S)


def test_the_files_of_the_page_on_clusters_are_sound():
    yaml = pytest.importorskip("yaml", reason="PyYAML is missing")
    up, job = map(yaml.safe_load, _blocks("yaml"))
    assert set(up["available_node_types"]) > {up["head_node_type"]}
    starts = [*up["head_start_ray_commands"], *up["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "start" in line)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    (group,) = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 64)
    assert "--config.cluster.hosts=64" in job["spec"]["entrypoint"]


def test_the_unit_of_the_page_on_clusters_is_sound():
    import configparser

    (unit,) = _blocks("ini")
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read_string(unit)
    assert "--block" in parsed["Service"]["ExecStart"]
    assert parsed["Service"]["Restart"] == "always"
    assert parsed["Service"]["Environment"] == "RAY_AUTH_MODE=token"
