"""Subject `hosts`: what 1, 2, 4 and 8 actor hosts give, on a Ray cluster made here."""

import contextlib
import importlib.util
import os
import pathlib
import secrets
import statistics
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import harness
from benchmarks import context as context_lib, trainings
from impala_mp import errors

_COUNTS = (1, 2, 4, 8)
_STORE_BYTES = 100 * 2**20  # Ray's least, of a node
_START_SECS = 300.0  # of all hosts
_PARTS = 4  # of a training's seconds
_ABOVE_ACTORS = 3  # generations: engine's process, fork server, host, fork server
_TOOLS = pathlib.Path(__file__).resolve().parent.parent


def actor_hosts(
    context: context_lib.Context,
) -> tuple[context_lib.Rows, context_lib.Ratios]:
    """Slots a second, their age and cores, and when nodes that join give slots.

    A host has one actor, whose cores are counted apart: they are those of any actor.
    """
    if not all(map(importlib.util.find_spec, ("ray", "zstandard"))):
        raise errors.BadInput(
            "`hosts` needs an extra that is not installed. Run pip install"
            " 'impala_mp[cluster]'."
        )
    rows: context_lib.Rows = {}
    ratios: context_lib.Ratios = {}
    secs, one = context.options.train_secs, 0.0
    with _cluster() as cluster:
        for count in _COUNTS:
            flags = [*context.flags, f"--config.cluster.address={cluster.address}"]
            flags += [f"--config.cluster.hosts={count}", "--config.cluster.actors=1"]
            found = _measure(cluster, flags, count, secs)
            units = {"slots": "slots/s", "age p99": "ms", "newest's first slot": "s"}
            for name, unit in units.items():
                rows[f"{count} hosts: {name}"] = context_lib.summary(found[name], unit)
            rate = statistics.median(found["slots"])
            one = one or rate
            ratios[f"{count}_hosts_over_linear"] = rate / (count * one)
            ratios[f"{count}_hosts_cores_each"] = found["cores"][0] / count
            ratios[f"{count}_hosts_cores_of_an_actor"] = found["actors"][0] / count
    return rows, ratios


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Starts a head without room for hosts."""
    places = [str(_TOOLS.parent), str(_TOOLS), os.environ.get("PYTHONPATH", "")]
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_worker_niceness": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
    }
    with mock.patch.dict(os.environ, settings):
        from ray import cluster_utils  # it reads the token's mode when it is imported

        made = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": _STORE_BYTES},
        )
        try:
            yield made
        finally:
            made.shutdown()


def _measure(
    cluster: Any, flags: list[str], count: int, secs: float
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"slots": [], "age p99": []}
    with trainings.started([*flags, trainings.ENDLESS]) as run:
        run.until(run.records, _START_SECS)
        while len(cluster.worker_nodes) < count:
            cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
        joined = time.monotonic()
        run.until(lambda: _all_send(run, count), _START_SECS)
        found["newest's first slot"] = [time.monotonic() - joined]
        alive = run.until(lambda: _with(run.records()[-1], count), _START_SECS)
        warm = alive["time_secs"] + trainings.WARM_UP_SECS
        start = first = run.until(trainings.later_than(run, warm), _START_SECS)
        hosts = [host["pid"] for host in harness.health(run.workdir)["hosts"]]
        before = _cpu_secs(hosts)
        for _ in range(_PARTS):
            after = trainings.later_than(run, first["time_secs"] + secs / _PARTS)
            last = run.until(after, secs + _START_SECS)
            arrived = last["hosts/arrived"] - first["hosts/arrived"]
            elapsed = last["time_secs"] - first["time_secs"]
            found["slots"].append(arrived / elapsed)
            found["age p99"].append(1e3 * last["hosts/age_p99_secs"])
            first = last
        elapsed = last["time_secs"] - start["time_secs"]
        used = [now - then for now, then in zip(_cpu_secs(hosts), before, strict=True)]
        found["cores"], found["actors"] = ([secs / elapsed] for secs in used)
    return found


def _cpu_secs(hosts: list[int]) -> tuple[float, float]:
    """Returns the CPU time of hosts without their actors, and that of the actors."""
    without = harness.cpu_secs(hosts, _ABOVE_ACTORS)
    return without, harness.cpu_secs(hosts) - without


def _all_send(run: harness.Training, count: int) -> bool:
    hosts = harness.health(run.workdir).get("hosts", [])
    return sum(host["arrived"] > 0 for host in hosts) == count


def _with(record: dict[str, Any], count: int) -> dict[str, Any] | None:
    return record if record.get("hosts/alive") == count else None
