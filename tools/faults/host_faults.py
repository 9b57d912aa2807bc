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
_PATIENCE_SECS = 60.0


class _HostWound:
    """A host that was hurt, until slots of it, or of its successor, arrive again."""

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
    """Commits them: `kill_host` is `kill` of "host"."""

    def __init__(self, run: run_lib.Run) -> None:
        self._run = run

    @property
    def _cluster(self) -> cluster_lib.Cluster:
        assert self._run.cluster
        return self._run.cluster

    def commit(self, verb: str, what: str, choice: int, share: float) -> None:
        getattr(self, f"_{verb}_{what}")(choice, share)

    def _victim(self, choice: int) -> dict[str, Any]:
        """A host that works, at a node whose link is up."""

        def find() -> dict[str, Any] | None:
            there = [
                host
                for host in self._run.watch.hosts
                if host["state"] in watch_lib.ALIVE
                and watch_lib.is_ours(host["pid"], self._cluster.token)
                and not self._run.is_frozen(host["pid"])
            ]
            return there[choice % len(there)] if there else None

        found: dict[str, Any] = self._run.until(find, "host", _PATIENCE_SECS)
        return found

    def _kill_host(self, choice: int, share: float) -> None:
        host = self._victim(choice)
        self._run.watch.wounds.append(_HostWound("host", host))
        self._run.signal(host["pid"], signal.SIGKILL)

    def _pause_host(self, choice: int, share: float) -> None:
        seconds = 0.2 + 1.3 * share
        pid = self._victim(choice)["pid"]
        self._run.freeze(pid, until=time.monotonic() + seconds)

    def _freeze_host(self, choice: int, share: float) -> None:
        host = self._victim(choice)
        self._run.watch.wounds.append(_HostWound("hung host", host))
        self._run.freeze(host["pid"])

    def _kill_node(self, choice: int, share: float) -> None:
        host = self._victim(choice)
        node = self._cluster.node_of(host["pid"])
        if node:
            self._run.watch.wounds.append(_HostWound("node", host))
            node.kill()

    def _cut_link(self, choice: int, share: float) -> None:
        """For a second or two nothing dies; after three or more, Ray's node does."""
        host = self._victim(choice)
        node = self._cluster.node_of(host["pid"])
        if node:
            until = time.monotonic() + 0.5 + 7.5 * share
            wound = _HostWound("link", host, dies=False, begins=until)
            self._run.watch.wounds.append(wound)
            node.cut(until)
