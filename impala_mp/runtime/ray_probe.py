"""Looks at a Ray cluster, in a process that ends: `python -m ... ADDRESS`.

Prints one line of JSON with the address and the nodes, or with the error. With
`--nodes` it reads a config from the input, and asks each node what it makes of it.
"""

import json
import os
import sys
import time
from typing import Any

MARK = "impala_mp.ray_probe "  # begins the line
NODES_SECS = 120.0  # for all nodes to answer
_MEGABYTES = 20  # fetched from each node


def main(address: str, *flags: str) -> None:
    """Connects to the cluster and prints what is there."""
    found: dict[str, Any]
    try:
        import ray

        ray.init(address=address, log_to_driver=False, configure_logging=False)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        facts = [
            {
                "ip": node["NodeManagerAddress"],
                "cpus": int(node["Resources"].get("CPU", 0)),
            }
            for node in nodes
        ]
        address = ray.get_runtime_context().gcs_address
        found = {"address": address, "nodes": facts, "ray": ray.__version__}
        if "--nodes" in flags:
            config = sys.stdin.read()
            for node, fact in zip(nodes, facts, strict=True):
                if fact["cpus"]:
                    fact |= _ask(ray, node["NodeID"], config)
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(MARK + json.dumps(found), flush=True)


def _ask(ray: Any, node: str, config: str) -> dict[str, Any]:
    """Returns the facts of one node, and its speed."""
    from ray.util import scheduling_strategies

    there = scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": there, "max_retries": 0}
    limit = NODES_SECS / 2.0
    try:
        asked = ray.remote(look).options(**options).remote(config)
        facts = ray.get(asked, timeout=limit)
        start = time.monotonic()
        send = ray.remote(megabytes).options(**options)
        ray.get(send.remote(_MEGABYTES), timeout=limit)
        speed = _MEGABYTES / (time.monotonic() - start)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if "Error" in line]
        return {"facts": {"error": (lines or [str(error)])[-1][:300]}}
    return {"facts": facts, "mb_per_sec": speed}


def look(text: str) -> dict[str, str]:
    """Returns the facts of a node for a config, JSON, or its refusal."""
    from impala_mp.config import fields
    from impala_mp.environments import members
    from impala_mp.runtime import allocation

    try:
        config = fields.from_json(text)
        policies = allocation.without_checks(config, members.probe(config))
        return dict(allocation.facts_of_all(policies))
    except Exception as error:  # of the user's environment
        return {"error": f"{type(error).__name__}: {error}"}


def megabytes(count: int) -> bytes:
    """Returns bytes that no compression makes smaller."""
    return os.urandom(count * 10**6)


if __name__ == "__main__":
    main(*sys.argv[1:])
