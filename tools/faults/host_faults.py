"""Faults of actor hosts: of their processes, their nodes and their links."""

import signal
import time
from typing import Any

from faults import cluster as cluster_lib, run as run_lib, watch as watch_lib

DECK = {  # beside the faults of any run
    **{"kill_host": 4, "pause_host": 2, "freeze_host": 1, "kill_node": 2},
    **{"kill_receiver": 3, "pause_receiver": 1, "freeze_receiver": 1, "cut_link": 3},
}
VICTIMS = ("host", "node", "link")  # the receiver is a process like others
SETTINGS = {
    "cluster.actors": 1,
    "cluster.orphan_secs": 10,
    **{f"health.max_restarts.{role}": 1000 for role in ("host", "receiver")},
}
_PATIENCE_SECS = 120.0  # for a host that works: a node must start before


class HostWound:
    """A host that was hurt, until slots of it, or of its successor, arrive again."""

    # Its node may have to start as well, and the next fault hits its successor.
    patience_secs = 180.0

    def __init__(
        self, name: str, host: dict[str, Any], dies: bool = True, begins: float = 0.0
    ) -> None:
        """dies: another process must follow. begins: monotonic, by default now."""
        self.name, self.since = name, max(begins, time.monotonic())
        self._seat = host["seat"]
        self._least = host["incarnation"] + dies
        self._arrived: int | None = None

    def healed(self, watch: watch_lib.Watch) -> bool:
        if time.monotonic() < self.since:
            return False
        for host in watch.hosts:
            if host["seat"] == self._seat and host["incarnation"] >= self._least:
                if host["state"] in watch_lib.ALIVE and self._arrived is None:
                    self._arrived = host["arrived"]
                return self._arrived is not None and host["arrived"] > self._arrived
        return False


class HostFaults:
    """Commits the faults of VICTIMS: `kill_host` is `kill` of "host"."""

    def __init__(self, run: run_lib.Run) -> None:
        self._run = run

    def commit(self, verb: str, what: str, choice: int, share: float) -> None:
        host, node = self._victim(choice)
        getattr(self, f"_{verb}_{what}")(host, node, share)

    def _victim(self, choice: int) -> tuple[dict[str, Any], cluster_lib.Node]:
        """Returns a host that works, and its node, whose link is up."""
        cluster = self._run.cluster
        assert cluster

        def find() -> tuple[dict[str, Any], cluster_lib.Node] | None:
            there = []
            for host in self._run.watch.hosts:
                works = host["state"] in watch_lib.ALIVE and host["pid"]
                if works and not self._run.is_frozen(host["pid"]):
                    node = cluster.node_of(host["pid"])
                    if node and not node.cut_until:
                        there.append((host, node))
            return there[choice % len(there)] if there else None

        found: tuple[dict[str, Any], cluster_lib.Node] = self._run.until(
            find, "host that works", _PATIENCE_SECS
        )
        return found

    def _hurt(self, wound: HostWound) -> None:
        self._run.watch.wounds.append(wound)

    def _kill_host(
        self, host: dict[str, Any], node: cluster_lib.Node, share: float
    ) -> None:
        self._hurt(HostWound("host", host))
        self._run.signal(host["pid"], signal.SIGKILL)

    def _pause_host(
        self, host: dict[str, Any], node: cluster_lib.Node, share: float
    ) -> None:
        seconds = 0.2 + 1.3 * share
        self._run.freeze(host["pid"], until=time.monotonic() + seconds)

    def _freeze_host(
        self, host: dict[str, Any], node: cluster_lib.Node, share: float
    ) -> None:
        self._hurt(HostWound("hung host", host))
        self._run.freeze(host["pid"])

    def _kill_node(
        self, host: dict[str, Any], node: cluster_lib.Node, share: float
    ) -> None:
        self._hurt(HostWound("node", host))
        node.kill()

    def _cut_link(
        self, host: dict[str, Any], node: cluster_lib.Node, share: float
    ) -> None:
        """Cuts a link for 0.5 to 8 s. After a long cut Ray starts the host again."""
        until = time.monotonic() + 0.5 + 7.5 * share
        self._hurt(HostWound("link", host, dies=False, begins=until))
        node.cut(until)
