"""Subject `hosts`: what 1, 2, 4 and 8 actor hosts give, on a Ray cluster made here."""

import contextlib
import importlib.util
import os
import pathlib
import secrets
import statistics
from collections.abc import Iterator
from typing import Any
from unittest import mock

from benchmarks import context as context_lib, sleeping, trainings
from impala_mp import errors

_COUNTS = (1, 2, 4, 8)
_STORE_BYTES = 100 * 2**20  # Ray's least, of a node
_TOOLS = pathlib.Path(__file__).resolve().parent.parent
_HERTZ = os.sysconf("SC_CLK_TCK")


def actor_hosts(
    context: context_lib.Context,
) -> tuple[context_lib.Rows, context_lib.Ratios]:
    """Slots a second, their age and cores, where environments sleep."""
    if not all(map(importlib.util.find_spec, ("ray", "zstandard"))):
        raise errors.BadInput(
            "`hosts` needs an extra that is not installed. Run pip install"
            " 'impala_mp[cluster]'."
        )
    rows, ratios = {}, {}
    with _cluster(max(_COUNTS)) as (address, nodes):
        for count in _COUNTS:
            found = _measure(address, nodes, count, context.options.train_secs)
            for name, unit in (("slots", "slots/s"), ("age p99", "ms")):
                rows[f"{count} hosts: {name}"] = context_lib.summary(found[name], unit)
            ideal = count / (sleeping.STEP_SECS * sleeping.UNROLL_LENGTH)
            ratios[f"{count}_hosts_over_ideal"] = (
                statistics.median(found["slots"]) / ideal
            )
            ratios[f"{count}_hosts_cores_each"] = found["cores"][0] / count
    return rows, ratios


@contextlib.contextmanager
def _cluster(count: int) -> Iterator[tuple[str, list[int]]]:
    """A head without room for hosts, and nodes; yields the address and their pids."""
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_worker_niceness": "0",
        "PYTHONPATH": f"{_TOOLS.parent}{os.pathsep}{_TOOLS}",
    }
    with mock.patch.dict(os.environ, settings):
        from ray import cluster_utils  # it reads the token's mode when it is imported

        made = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": _STORE_BYTES},
        )
        try:
            for _ in range(count):
                made.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
            nodes = [
                info[0].process.pid
                for node in made.worker_nodes
                for kind, info in node.all_processes.items()
                if kind == "raylet"
            ]
            yield made.address, nodes
        finally:
            made.shutdown()


def _measure(
    address: str, nodes: list[int], count: int, secs: float
) -> dict[str, list[float]]:
    flags = [
        f"--config={_TOOLS}/benchmarks/sleeping.py",
        f"--config.cluster.address={address}",
        f"--config.cluster.hosts={count}",
    ]
    found: dict[str, list[float]] = {"slots": [], "age p99": [], "cores": []}
    with trainings.started([*flags, trainings.ENDLESS]) as run:
        alive = run.until(lambda: _alive(run.records()[-1], count), 300.0)
        first = run.until(
            trainings.later_than(run, alive["time_secs"] + trainings.WARM_UP_SECS),
            300.0,
        )
        before, start = _cpu_secs(nodes), first
        parts = 4
        for _ in range(parts):
            last = run.until(
                trainings.later_than(run, first["time_secs"] + secs / parts),
                secs + 60.0,
            )
            elapsed = last["time_secs"] - first["time_secs"]
            arrived = last["hosts/arrived"] - first["hosts/arrived"]
            found["slots"].append(arrived / elapsed)
            found["age p99"].append(1e3 * last["hosts/age_p99_secs"])
            first = last
        used = _cpu_secs(nodes) - before
        found["cores"].append(used / (last["time_secs"] - start["time_secs"]))
    return found


def _alive(record: dict[str, Any], count: int) -> dict[str, Any] | None:
    return record if record.get("hosts/alive") == count else None


def _cpu_secs(nodes: list[int]) -> float:
    """CPU time of all that the nodes have started, but not of the nodes' own."""
    parents, used = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, fields = path.read_text().rsplit(")", 1)
            pid = int(path.parent.name)
            parents[pid] = int(fields.split()[1])
            used[pid] = sum(map(int, fields.split()[11:13])) / _HERTZ
    mine = set(nodes)
    while more := {p for p, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(used[pid] for pid in mine - set(nodes))
