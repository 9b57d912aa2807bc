"""Checks of a Ray cluster before a run, without an import of Ray in this process."""

import importlib.util
import ipaddress
import json
import os
import subprocess
import sys
from typing import Any

from impala_mp import errors
from impala_mp.config import cluster_rules, derived, fields
from impala_mp.runtime import ray_probe
from impala_mp.workers import host_facts

_LIMIT_SECS = 25.0  # Ray gives up after 20 s, with few words
_EXTRA = ("ray", "zstandard")


def check(config: Any, num_cores: int) -> list[str]:
    """Returns sentences on the cluster in the config; [] without one.

    Raises:
      BadInput: the extra is missing, or the cluster cannot be used.
    """
    settings = config.cluster
    if not settings.hosts:
        return []
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.BadInput(
            f"cluster.hosts ({settings.hosts}) needs {' and '.join(missing)}. Install"
            " them with `pip install 'impala_mp[cluster]'`, or set"
            " config.cluster.hosts=0."
        )
    if settings.address != "auto":
        _check_token(settings.address, settings.insecure)
    found = _look(settings.address)
    _check_token(found["address"], settings.insecure)
    return _describe(config, num_cores, found)


def check_nodes(config: Any, here: host_facts.Facts) -> list[tuple[str, bool]]:
    """Asks each node what it makes of the config.

    Returns:
      A sentence for each node, and whether the node can take part.
    """
    limit = ray_probe.NODES_SECS + _LIMIT_SECS
    found = _look(config.cluster.address, limit, fields.to_json(config))
    lines = []
    for node in found["nodes"]:
        facts = node.get("facts")
        if facts is None:
            lines.append((f"{node['ip']} has no CPU for a host.", True))
            continue
        wrong = facts.get("error") or host_facts.difference(here, tuple(facts.items()))
        text = f"{node['ip']}: {wrong}"
        if not wrong:
            text = (
                f"{node['ip']} has {node['cpus']} CPUs, the same versions, layouts and"
                f" environment, and sends {node['mb_per_sec']:.0f} MB/s in one call."
            )
        lines.append((text, not wrong))
    return lines


def _look(
    address: str, limit_secs: float = _LIMIT_SECS, config: str = ""
) -> dict[str, Any]:
    """Returns what `ray_probe` has found; with a config also on each node.

    Raises:
      BadInput: there is no cluster, or it does not answer in time.
    """
    command = [sys.executable, "-m", ray_probe.__name__, address]
    command += ["--nodes"] * bool(config)
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            input=config,
            text=True,
            timeout=limit_secs,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no answer within {limit_secs:g} s") from None
    lines = [x for x in done.stdout.splitlines() if x.startswith(ray_probe.MARK)]
    if not lines:
        raise _unreachable(address, f"exit code {done.returncode}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(ray_probe.MARK))
    if "error" in found:
        raise _unreachable(address, " ".join(found["error"].split())[:200])
    return found


def _unreachable(address: str, reason: str) -> errors.BadInput:
    token = (
        "The token in RAY_AUTH_TOKEN or ~/.ray/auth_token must be that of the cluster."
        if has_token()
        else "A cluster with a token needs RAY_AUTH_MODE=token here, too."
    )
    return errors.BadInput(
        f"cluster.address ({address!r}) is not a Ray cluster that can be used"
        f" ({reason}). Start one with `ray start --head`, with the same versions of Ray"
        f" and Python. {token}"
    )


def has_token() -> bool:
    """Returns whether Ray authenticates by a token in this environment."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() not in ("", "disabled")


def _check_token(address: str, insecure: bool) -> None:
    """Refuses an address that is not of this machine without a token.

    Raises:
      BadInput: there is none.
    """
    if insecure or has_token() or is_loopback(address):
        return
    raise errors.BadInput(
        f"cluster.address ({address}) is not a loopback address, and Ray has no token:"
        " any machine that reaches it can run code there. Make a token with `ray"
        " get-auth-token --generate` and set RAY_AUTH_MODE=token, on all nodes and"
        " here. In a private network, config.cluster.insecure=True allows it."
    )


def is_loopback(address: str) -> bool:
    """Returns whether host:port is of this machine alone."""
    host = address.rpartition("//")[2].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _describe(config: Any, num_cores: int, found: dict[str, Any]) -> list[str]:
    settings, nodes = config.cluster, found["nodes"]
    size = derived.host_actors(config, num_cores)
    cpus = sum(node["cpus"] for node in nodes)
    text = (
        f"Cluster: Ray {found['ray']} at {found['address']} with {len(nodes)} nodes and"
        f" {cpus} CPUs. Up to {settings.hosts} actor hosts with {size} actors each."
    )
    lag = cluster_rules.expected_lag(config, num_cores)
    text += f" Full rings are {lag:.1f} updates ahead of the learner"
    if lag <= cluster_rules.MUCH_LAG:
        return [text + "."]
    return [
        f"{text}: above {cluster_rules.MUCH_LAG} such a policy lag may cost learning."
        " Raise config.batch_size, or lower config.actors.slots and"
        " config.cluster.slots."
    ]
