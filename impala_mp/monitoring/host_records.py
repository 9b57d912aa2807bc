"""Actor hosts in metrics, health.json, hosts.jsonl and the bottleneck's sentence."""

import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from impala_mp.storage import files
from impala_mp.transport import shared as shared_lib

NAME = "hosts.jsonl"
LOG_SECS = 30.0  # between two lines of a host; a thousand hosts make 15 kB/s

_LIVE = ("running", "waiting_for_slot", "unreachable", "ended")
_COUNTERS = ("agent_steps", "updates")
_SLOW = 0.5  # of the median's speed; a slower host is named

METRICS = tuple(
    f"hosts/{name}"
    for name in (
        *("seats", "alive", "restarts", "bad_data"),
        *("steps_per_sec_min", "steps_per_sec_median", "steps_per_sec_max"),
        *("age_p99_secs", "lag_max", "wire_mb_per_sec", "compression"),
        *("reported", "arrived", "on_the_way", "lost"),
    )
)


class HostRecords:
    """States of all actor hosts, from their books and the receiver's board."""

    def __init__(self, policies: Sequence[shared_lib.Shared]) -> None:
        self._shared = shared = policies[0]
        self._board = shared.hosts
        self._reported: set[tuple[int, int]] = set()  # seats, and their deaths
        self._lost: set[int] = set()  # seats that were reported as lost
        self._logged = -math.inf  # time of the last lines
        # With the trajectories of a slot.
        self._books = [
            (
                self._board.books(host, each.rings.ring(number), each.number),
                each.config.actors.environments,
            )
            for each in policies
            for host, number in enumerate(shared.topology.host_rings)
            if self._board
        ]

    def states(self) -> list[dict[str, Any]]:
        """Returns the newest state of each host, as in health.json."""
        return self._board.read() if self._board else []

    def log(self, folder: str, record: dict[str, float]) -> None:
        """Appends the state of each host to hosts.jsonl, if it is time.

        Args:
          record: the newest one, with its counters.

        Raises:
          OSError: it cannot be written; then nothing is appended.
        """
        states, now = self.states(), time.monotonic()
        if not states or now < self._logged + LOG_SECS:
            return
        self._logged = now
        when = {"time": time.time(), **{k: record.get(k, 0) for k in _COUNTERS}}
        lines = [json.dumps({**when, **host}) + "\n" for host in states]
        files.append(os.path.join(folder, NAME), "".join(lines))

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of a record; {} without hosts.

        Raises:
          RuntimeError: slots of a host are lost or counted twice.
        """
        if not self._board:
            return {}
        counts = [
            [size * slots for slots in books.counts()] for books, size in self._books
        ]
        sums = [sum(column) for column in zip(*counts, strict=True)]
        names = ("reported", "arrived", "on_the_way", "lost")
        states = self.states()
        live = [host for host in states if host["state"] in _LIVE]
        speeds = [host["steps_per_sec"] for host in live] or [0.0]
        return {
            "hosts/seats": self._board.num_hosts,
            "hosts/alive": len(live),
            "hosts/restarts": sum(host["restarts"] for host in states),
            "hosts/bad_data": sum(host["bad_data"] for host in states),
            "hosts/steps_per_sec_min": min(speeds),
            "hosts/steps_per_sec_median": statistics.median(speeds),
            "hosts/steps_per_sec_max": max(speeds),
            "hosts/age_p99_secs": max([host["age_p99_secs"] for host in live] or [0]),
            "hosts/lag_max": max([host["lag"] for host in live] or [0]),
            "hosts/wire_mb_per_sec": sum(host["wire_mb_per_sec"] for host in live),
            "hosts/compression": statistics.median(
                [host["compression"] for host in live] or [0.0]
            ),
            **{f"hosts/{k}": float(n) for k, n in zip(names, sums, strict=True)},
        }

    def news(self) -> list[str]:
        """Returns sentences on deaths of hosts, each once."""
        found = []
        states = self.states()
        for host in states:
            seat, deaths = host["seat"], host["restarts"]
            title = f"Actor host {seat}{' on ' * bool(host['node'])}{host['node']}"
            if host["state"] == "lost" and seat not in self._lost:
                self._lost.add(seat)
                left = sum(each["state"] != "lost" for each in states)
                least = self._shared.config.health.min_hosts
                found.append(
                    f"{title} {host['reason']}. THE RUN CONTINUES WITH {left} ACTOR"
                    f" HOSTS (config.health.min_hosts={least})."
                )
            elif deaths and (seat, deaths) not in self._reported:
                found.append(f"{title} {host['reason']}; Ray starts another one.")
            self._reported.add((seat, deaths))
        return found

    def limit(self) -> str:
        """Returns a sentence if one host is much slower than the others, or ""."""
        live = [host for host in self.states() if host["state"] == "running"]
        if len(live) < 3:
            return ""
        median = statistics.median(host["steps_per_sec"] for host in live)
        slowest = min(live, key=lambda host: host["steps_per_sec"])
        if not median or slowest["steps_per_sec"] >= _SLOW * median:
            return ""
        share = 100 * slowest["steps_per_sec"] / median
        return (
            f"Actor host {slowest['seat']} on {slowest['node']} makes {share:.0f} % of"
            " the median host's steps."
        )
