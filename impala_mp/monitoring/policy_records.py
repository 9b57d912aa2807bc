"""Records of the learners: one of each policy, merged into one of the run."""

import statistics
from collections.abc import Sequence
from math import nan
from typing import Any

from impala_mp.transport import shared as shared_lib
from impala_mp.workers import action_counts, episode_statistics, policy_lag

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
    "memory/device_mib",
)

Record = tuple[dict[str, float], dict[str, Any]]  # metrics, and histograms by name


class PolicyRecords:
    """Reader of the records of all policies.

    With several, each metric is there as NAME/POLICY. NAME alone is the sum of counts,
    and of anything else the mean over the players whose policy has it.
    """

    def __init__(self, policies: Sequence[shared_lib.Shared]) -> None:
        self._policies = policies
        self._newest: dict[str, Record] = {}  # by policy
        self._num_players = {x.policy: len(x.environment.players) for x in policies}

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
        """Returns the record of the run, if all policies are of one incarnation."""
        lives = {each["restored/incarnation"] for each, _ in self._newest.values()}
        if len(self._newest) < len(self._policies) or len(lives) > 1:
            return []
        return [_merged(self._newest, self._num_players)]


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


def _merged(records: dict[str, Record], weights: dict[str, int]) -> Record:
    """Returns the record of a run, from those of its policies by name."""
    every = {policy: record for policy, (record, _) in records.items()}
    merged = {}
    for name in dict.fromkeys(name for record in every.values() for name in record):
        values = {p: record.get(name, nan) for p, record in every.items()}
        known = {p: value for p, value in values.items() if value == value}
        merged[name] = _combined(name, known, weights) if known else nan
    histograms: dict[str, Any] = {}
    for policy, (record, own) in records.items():
        histograms |= {f"{name}/{policy}": each for name, each in own.items()}
        merged |= {
            f"{name}/{policy}": value
            for name, value in record.items()
            if not name.startswith("restored/") and name != "time_secs"
        }
    return merged, histograms
