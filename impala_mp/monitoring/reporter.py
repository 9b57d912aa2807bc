"""Writes one record of the run per interval to files, display and health.json."""

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from impala_mp.config import container_limits, derived, fields
from impala_mp.monitoring import (
    bottleneck,
    display,
    findings,
    health,
    host_records,
    live_control,
    metric_docs,
    policy_records,
    population,
)
from impala_mp.storage import metrics
from impala_mp.transport import shared as shared_lib

_STALL_SECS = 20.0  # without an update; then a stall is reported
_SPLIT = ("environment", "inference", "wait")
# Counters that restart with the supervisor; the metrics add the earlier runs.
_CARRIED = {
    "health/restarts",
    "health/bad_data",
    "health/observations_outside",
    "health/torn_reads_retried",
    "health/rank_mismatches",
}


class _OnceAMinute:
    """Filter of messages: at most one a minute."""

    def __init__(self, screen: display.Display) -> None:
        self._screen, self._reported = screen, -math.inf

    def report(self, text: str) -> None:
        if time.monotonic() - self._reported >= 60.0:
            self._screen.message(text)
            self._reported = time.monotonic()


class Reporter:
    """Merges the records of all processes, and writes them."""

    def __init__(
        self,
        policies: Sequence[shared_lib.Shared],
        path: str,
        screen: display.Display,
        run: int = 0,
    ) -> None:
        """`run` is the number of earlier runs in the folder `path`."""
        self._policies, self._path, self._screen = policies, path, screen
        self._shared = shared = policies[0]
        self._run = run
        self._records = policy_records.PolicyRecords(policies)
        self._books = [books for each in policies for books in each.control.books]
        self._actor_rows = [shared.row(seat) for seat in shared.topology.actors]
        self._failed_checkpoints = 0
        self._news = time.monotonic()  # time of the last update
        self._stall_reported = False
        self._disk = _OnceAMinute(screen)
        self._num_cores = container_limits.num_cores()
        devices = [torch.device(each.config.learner.device).type for each in policies]
        self._device = next((each for each in devices if each != "cpu"), "cpu")
        self.bottleneck = ""
        self._writer = metrics.Writer(path, metric_docs.describe, self._begin_events)
        self._live = live_control.LiveControl(
            [live_control.of(each) for each in policies], path, screen.message
        )
        self._population: population.Population | None = None
        if shared.population:
            self._population = population.Population(
                policies, shared.population, self._live, path, screen.message
            )
        self._hosts = host_records.HostRecords(policies)
        self._learned = 0  # trajectories
        self._watcher = findings.Watcher(fields.flatten(shared.whole))
        self._evaluation: dict[str, float] = {}
        self._unwritten: dict[str, float] = {}  # an evaluation not in a record yet
        self._before: dict[str, float] = {}
        self._incarnation = -1.0  # of the learner; of several, the sum
        self._carried: dict[str, float] = {}  # the last record of earlier runs
        self._actor_ns = np.zeros(len(_SPLIT))
        self._actor_steps = 0
        self._split: dict[str, float] = {}  # of the last interval with a step
        self._time = time.monotonic()

    def _begin_events(self, events: Any) -> None:
        """Fills a new file of TensorBoard with the layout and the config."""
        events.add_layout()
        flat = fields.flatten(self._shared.whole)
        events.add_hyperparameters(flat)
        rows = [f"| `{name}` | `{value}` |" for name, value in flat.items()]
        events.add_text("config", "\n".join(["| field | value |", "|---|---|", *rows]))

    def tick(self, statuses: list[health.Status]) -> None:
        """Handles one interval; writes no record without a new update."""
        self._look_for_news()
        self._screen.processes(statuses)
        for sentence in self._hosts.news():
            self._screen.message(sentence)
        steps, own = int(self._before.get("agent_steps", 0)), "agent_steps/"
        by_policy = {
            key.removeprefix(own): value
            for key, value in self._before.items()
            if key.startswith(own)
        }
        self._guarded(self._live.tick, steps, by_policy)
        self.look_at_population()
        self._guarded(self._write_health, statuses)
        self._guarded(self._hosts.log, self._path, self._before)
        self._report_failed_checkpoints()
        records = self._records.read()
        if records:
            actors = {**self._actor_split(), **self._memory(statuses)}
            actors |= self._hosts.metrics()
        for record, histograms in records:
            self._take(record, histograms, actors, statuses)

    def _take(
        self,
        record: dict[str, float],
        histograms: dict[str, Any],
        actors: dict[str, float],
        statuses: list[health.Status],
    ) -> None:
        """Writes a record of the learner with `actors`, the metrics of this tick."""
        restored = {
            name.removeprefix("restored/"): record.pop(name)
            for name in [*record]
            if name.startswith("restored/")
        }
        incarnation = restored.pop("incarnation")
        if incarnation != self._incarnation:
            self._guarded(self._writer.rewind, restored)
            if self._incarnation < 0:
                self._carried = metrics.last(self._path)
            self._incarnation, self._before = incarnation, restored
        if record["updates"] == self._before["updates"]:
            return
        merged = {
            **record,
            "env_frames": record["agent_steps"]
            * self._shared.environment.frames_per_step,
            **self._rates(record),
            **actors,
            **self._health(statuses),
            "health/run": self._run,
            **self._unwritten,
        }
        self._unwritten = {}
        merged = _as_integers(merged)
        self._before = record
        lists = {name: each.bucket_counts for name, each in histograms.items()}
        for sentence in self._watcher.tick({**merged, **lists}):
            self._screen.message(sentence)
        self._guarded(self._writer.write, merged, histograms)
        self.bottleneck = bottleneck.explain(
            merged,
            len(self._actor_rows),
            self._num_cores,
            self._device,
            derived.server_threads(self._shared.config.inference),
            self._shared.config.learner.ranks,
            self._shared.config.learner.processes,
        )
        self.bottleneck = f"{self.bottleneck} {self._hosts.limit()}".strip()
        self._screen.update({**self._evaluation, **merged}, self.bottleneck)

    def look_at_population(self) -> None:
        """Decides a round of the population if one is complete."""
        if self._population:
            self._guarded(self._population.look)

    def _look_for_news(self) -> None:
        learned = sum(each.get("learned") for each in self._books)
        if learned != self._learned:
            self._learned, self._news = learned, time.monotonic()
        for evaluation in self._shared.evaluation_record.read():
            self._evaluation = self._unwritten = evaluation

    def _guarded(self, write: Callable[..., None], *arguments: Any) -> None:
        """Calls `write`; a full disk is reported once a minute and stops nothing."""
        try:
            write(*arguments)
        except OSError as error:
            self._disk.report(f"{error}: this is not written, and the run continues.")

    def _report_failed_checkpoints(self) -> None:
        """Reports checkpoints that the learner could not write."""
        failed = sum(each.get("failed_checkpoints") for each in self._books)
        if failed > self._failed_checkpoints:
            self._failed_checkpoints = failed
            self._disk.report(
                f"{failed} checkpoints could not be written (see {self._logs()})."
                " Training continues, and the newest valid one is kept."
            )

    def _logs(self) -> str:
        """Returns the logs of the processes that write checkpoints."""
        several = self._shared.config.learner.processes > 1
        return f"logs/learner-{'*' if several else 0}.log"

    def close(self) -> None:
        self._writer.close()

    def _rates(self, record: dict[str, float]) -> dict[str, float]:
        seconds = max(1e-9, record["time_secs"] - self._before["time_secs"])
        steps = (record["agent_steps"] - self._before["agent_steps"]) / seconds
        updates = (record["updates"] - self._before["updates"]) / seconds
        return {
            "throughput/agent_steps_per_sec": steps,
            "throughput/env_frames_per_sec": steps
            * self._shared.environment.frames_per_step,
            "throughput/updates_per_sec": updates,
        }

    def _actor_split(self) -> dict[str, float]:
        """Returns shares of the actors' time since the last interval.

        Those of an interval without a step, as after the end of a run, are the ones
        before.
        """
        rows = self._actor_rows
        steps = sum(row.get("agent_steps") for row in rows)
        if self._split and steps == self._actor_steps:
            return self._split
        totals = np.array(
            [sum(row.get(f"{name}_ns") for row in rows) for name in _SPLIT], float
        )
        now = time.monotonic()
        wall_ns = max(1e-9, now - self._time) * 1e9 * len(rows)
        spent = totals - self._actor_ns
        # A wait counts where it ends; it may have begun in an earlier interval.
        shares = spent / max(wall_ns, spent.sum())
        step_ms = spent * 1e-6 / max(1, steps - self._actor_steps)
        self._actor_ns, self._actor_steps, self._time = totals, steps, now
        self._split = {
            **{
                f"time/actor_{k}": float(v) for k, v in zip(_SPLIT, shares, strict=True)
            },
            "time/environment_step_ms": float(step_ms[0]),
            "time/inference_step_ms": float(step_ms[1]),
        }
        return self._split

    def _memory(self, statuses: list[health.Status]) -> dict[str, float]:
        """Returns the private MiB of the processes of each role, and of the arena."""
        arena = sum(
            each.rings.nbytes
            + each.learner_memory.nbytes
            + 3 * (each.store.num_bytes + each.snapshots.num_bytes)
            for each in self._policies
        )
        found: dict[str, float] = {"memory/arena_mib": arena / 2**20}
        for status in statuses:
            if status.pid:
                key = f"memory/{status.role}_mib"
                found[key] = found.get(key, 0.0) + private_mib(status.pid)
        return found

    def _health(self, statuses: list[health.Status]) -> dict[str, float]:
        rows = self._actor_rows
        found = {
            "health/processes_alive": sum(s.pid > 0 for s in statuses),
            # The evaluator starts late.
            "health/processes_total": sum(
                s.pid > 0 or s.state != "not_started" for s in statuses
            ),
            "health/restarts": sum(s.restarts for s in statuses),
            "health/bad_data": sum(
                r.get("bad_rewards") + r.get("bad_observations") for r in rows
            ),
            "health/observations_outside": sum(
                r.get("observations_outside") for r in rows
            ),
            "health/torn_reads_retried": sum(r.get("torn_reads") for r in rows),
        }
        if self._shared.config.learner.ranks > 1:
            found["health/rank_mismatches"] = sum(
                books.get("rank_mismatches") for books in self._books
            )
        for name in found.keys() & _CARRIED:
            found[name] += self._carried.get(name, 0)
        return found

    def _stall(self, statuses: list[health.Status]) -> str:
        """Returns the explanation of a stall, else ""; each stall is reported once."""
        quiet = time.monotonic() - self._news
        if quiet < _STALL_SECS or statuses[0].state != "running":
            self._stall_reported = False
            return ""
        unit = "process" if self._shared.config.learner.processes > 1 else "rank"
        states = [(status.role, status.state) for status in statuses]
        text = bottleneck.explain_stall(quiet, states, unit)
        if not self._stall_reported:
            self._screen.message(text)
            self._stall_reported = True
        return text

    def _write_health(self, statuses: list[health.Status]) -> None:
        found = {
            "time": time.time(),
            "bottleneck": self.bottleneck,
            "stall": self._stall(statuses),
            "live": self._live.not_from_config(),
            "processes": [s._asdict() for s in statuses],
        }
        if hosts := self._hosts.states():
            found["hosts"] = hosts
        health.write(self._path, found)


def _as_integers(record: dict[str, float]) -> dict[str, float]:
    """Converts counts to integers, so that they read as counts."""
    return {
        key: int(value)
        if key.partition("/")[0] in ("agent_steps", "env_frames", "updates")
        or (key.startswith("health/") and float(value).is_integer())
        else value
        for key, value in record.items()
    }


_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def private_mib(pid: int) -> float:
    """Returns a process's MiB without the arena and mapped files; 0 if it is gone.

    Pages that a forkserver child still shares with its parent are counted for both.
    """
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (resident - shared) * _PAGE_MIB
