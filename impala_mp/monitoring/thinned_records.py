"""Records of a run, thinned to a bounded number: neighbours merge in pairs."""

import itertools
from collections.abc import Iterable
from typing import Any

from impala_mp.storage import files, metrics

Record = dict[str, Any]

_COUNTERS = (*metrics.COUNTERS, "health/", "episode/count")


class ThinnedRecords:
    """Bounded list of entries, each of as many records, oldest first."""

    def __init__(self, limit: int, records: Iterable[Record] = ()) -> None:
        """Takes the largest number of entries, and the first records."""
        self.records: list[Record] = []
        self._limit = limit
        self._stride = 1  # records in each entry but the last
        self._held = 1  # records in the last entry
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Adds the newest record; it replaces those beyond its own agent steps.

        A learner that was restarted has learned less than the record before.
        """
        self.drop_beyond(record["agent_steps"])
        if self.records and self._held < self._stride:
            self.records[-1] = _merged(self.records[-1], record, self._held)
            self._held += 1
            return
        if len(self.records) >= self._limit:
            pairs = itertools.zip_longest(self.records[::2], self.records[1::2])
            self.records = [_merged(a, b, 1) if b else a for a, b in pairs]
            self._stride *= 2
        self.records.append(record)
        self._held = 1

    def drop_beyond(self, agent_steps: float) -> None:
        """Removes the entries after that many agent steps."""
        while self.records and self.records[-1]["agent_steps"] > agent_steps:
            self.records.pop()
            self._held = self._stride


def _merged(old: Record, new: Record, weight: int) -> Record:
    """Returns the mean of `old`, which counts `weight` times, and of `new`.

    Counters are those of `new`.
    """
    merged = {**old, **new}
    for key, value in old.items():
        if key.startswith(_COUNTERS) or not files.is_number(new.get(key)):
            continue
        if files.is_number(value):
            merged[key] = value + (new[key] - value) / (weight + 1)
    return merged
