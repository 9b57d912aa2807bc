"""Records of the learners: one of each policy, merged into one of the run."""

import statistics
from collections.abc import Sequence
from math import inf, nan
from typing import Any

from impala_mp.transport import shared as shared_lib
from impala_mp.workers import (
    action_counts,
    episode_statistics,
    learner_metrics,
    policy_lag,
)

_SUMS = (
    "agent_steps",
    "updates",
    "episode/count",
    "restored/agent_steps",
    "restored/updates",
    "replay/size",
    *(f"health/{name}" for name in ("committed", "learned", "discarded", "in_flight")),
    "health/updates_skipped",
    "health/drift_alarms",
    "health/mixed_unrolls",
    "population/copies",
    # Shares of the time of one process.
    *(f"time/learner_{phase}" for phase in ("batch", "update", "publish")),
)
_LARGEST = (
    "time_secs",
    "restored/time_secs",
    "restored/incarnation",
    "health/checkpoint_update",
    "health/drift",
    "episode/return_max",
    "lag/max",
    "lag/age_max_secs",
)
_RESTORED = tuple(f"restored/{name}" for name in learner_metrics.PROGRESS)

Record = tuple[dict[str, float], dict[str, Any]]  # metrics, and histograms by name


class PolicyRecords:
    """Reader of the records of all policies.

    With several, each metric is there as NAME/POLICY. NAME alone is the sum of counts,
    and of anything else the mean over the players whose policy has it. Shares of a
    learner's time are those of the busiest process, which limits all.
    """

    def __init__(self, policies: Sequence[shared_lib.Shared]) -> None:
        self._policies = policies
        self._newest: dict[str, Record] = {}  # by policy
        self._num_players = {x.policy: len(x.environment.players) for x in policies}
        # Processes that learn, by policy; their newest lives that are in a record.
        self._processes = {
            each.policy: each.topology.learner(each.number).index for each in policies
        }
        self._lives: dict[int, float] = {}

    def read(self) -> list[Record]:
        """Returns new records, in the order of their time.

        With several policies each has the newest of every policy, and something new.
        """
        found = [
            (each.policy, _taken(each, record))
            for each in self._policies
            for record in each.learner_record.read()
        ]
        if len(self._policies) == 1:
            return [record for _, record in found]
        # A learner that resumes goes back in time.
        order = "restored/incarnation", "time_secs"
        found.sort(key=lambda pair: [pair[1][0][name] for name in order])
        merged: list[Record] = []
        new: set[str] = set()
        for policy, record in found:
            if policy in new:
                merged += self._merge()
                new.clear()
            self._newest[policy] = record
            new.add(policy)
        return [*merged, *self._merge()] if new else merged

    def _merge(self) -> list[Record]:
        """Returns the record of the run, if policies of one process are of one life."""
        lives = {
            (self._processes[policy], record["restored/incarnation"])
            for policy, (record, _) in self._newest.items()
        }
        if len(self._newest) < len(self._policies) or len(lives) > len(
            set(self._processes.values())
        ):
            return []
        found, histograms = _merged(self._newest, self._num_players, self._busiest())
        found["memory/device_mib"] = self._device_mib()
        found |= self._restored(dict(lives))
        self._lives = dict(lives)
        return [(found, histograms)]

    def _restored(self, lives: dict[int, float]) -> dict[str, float]:
        """Returns the state that the run resumes from when a process has died.

        It is what that process has restored, and what the others have learned.
        """
        state: dict[str, float] = {}
        totals = dict.fromkeys(_RESTORED, 0.0)
        for policy, (record, _) in self._newest.items():
            process = self._processes[policy]
            begins = self._lives.get(process) != lives[process]
            for name in _RESTORED:
                own = record[name if begins else name.removeprefix("restored/")]
                if name == "restored/time_secs":
                    totals[name] = max(totals[name], own)
                else:
                    totals[name] += own
                    state[f"{name}/{policy}"] = own
        return {**state, **totals, "restored/incarnation": sum(lives.values())}

    def _busiest(self) -> list[str]:
        """Returns the policies of the process that waits least, and limits the run.

        A process whose policies are finished does not.
        """
        by_process: dict[int, list[str]] = {}
        for policy, process in self._processes.items():
            by_process.setdefault(process, []).append(policy)
        over = {
            each.policy
            for each in self._policies
            if each.control.books[0].get("is_over")
        }
        found = [*by_process.values()]
        working = [policies for policies in found if not over.issuperset(policies)]
        return min(working or found, key=self._waited)

    def _waited(self, policies: list[str]) -> float:
        """Returns the share of its time that the process of these policies waits."""
        waits = [self._newest[each][0]["time/learner_wait"] for each in policies]
        return max([wait for wait in waits if wait == wait], default=inf)

    def _device_mib(self) -> float:
        """Returns the GPU memory of all processes, each of which records its own."""
        found: dict[int, float] = {}
        for policy, (record, _) in self._newest.items():
            if (own := record["memory/device_mib"]) == own:
                process = self._processes[policy]
                found[process] = max(own, found.get(process, 0.0))
        return sum(found.values()) if found else nan


def _combined(name: str, values: dict[str, float], weights: dict[str, int]) -> float:
    """Returns the metric of a run, from those of its policies."""
    if name in _LARGEST:
        return max(values.values())
    if name == "episode/return_min":
        return min(values.values())
    if name in _SUMS:
        return sum(values.values())
    return statistics.fmean(values.values(), [weights[policy] for policy in values])


def _taken(shared: shared_lib.Shared, record: dict[str, float]) -> Record:
    """Takes the counts of histograms out of a policy's record, and names numbers."""
    histograms = {}
    if counts := policy_lag.take(record):
        histograms[policy_lag.HISTOGRAM] = policy_lag.raw(counts)
    num_actions = getattr(shared.environment.action, "num_actions", 0)
    if taken := action_counts.take(record, num_actions):
        histograms[action_counts.HISTOGRAM] = action_counts.raw(taken)
    names = shared.learner_names[0].names()
    return episode_statistics.with_names(record, names), histograms


def _merged(
    records: dict[str, Record], weights: dict[str, int], busiest: list[str]
) -> Record:
    """Returns the record of a run, from those of its policies by name.

    Shares of a learner's time are those of the process of the policies `busiest`.
    """
    every = {policy: record for policy, (record, _) in records.items()}
    merged = {}
    for name in dict.fromkeys(name for record in every.values() for name in record):
        own = busiest if name.startswith("time/learner_") else every
        values = {policy: every[policy].get(name, nan) for policy in own}
        known = {p: value for p, value in values.items() if value == value}
        merged[name] = _combined(name, known, weights) if known else nan
    histograms: dict[str, Any] = {}
    for policy, (record, counts) in records.items():
        histograms |= {f"{name}/{policy}": each for name, each in counts.items()}
        merged |= {
            f"{name}/{policy}": value
            for name, value in record.items()
            if not name.startswith("restored/") and name != "time_secs"
        }
    return merged, histograms
