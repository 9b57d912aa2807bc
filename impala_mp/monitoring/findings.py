"""Findings: warnings in words, of a whole record or of a run while it trains."""

import math
from collections.abc import Iterable
from typing import Any

from impala_mp.monitoring import evidence, learning_rules, running_rules

_RULES = (*learning_rules.RULES, *running_rules.RULES)
_SEVERITIES = (evidence.ERROR, evidence.WARNING, evidence.HINT)
# A judgement costs as much as 16 merges; judging once for 1/16 new records keeps the
# cost of a record constant.
_PART = 16
_QUIET_SECS = 900.0  # absence after which the same finding is reported again


def find(
    records: Iterable[evidence.Record],
    settings: dict[str, Any],
    evaluations: Iterable[dict[str, Any]] = (),
) -> list[evidence.Finding]:
    """Returns the findings of a run, the most severe first.

    Args:
      records: as in metrics.jsonl, oldest first.
      settings: the config, as `fields.flatten` returns it; may lack any field.
      evaluations: as in evaluations.jsonl.
    """
    return _judge(evidence.History(records), settings, evaluations)


def _judge(
    history: evidence.History,
    settings: dict[str, Any],
    evaluations: Iterable[dict[str, Any]] = (),
) -> list[evidence.Finding]:
    known = evidence.Evidence(history.records, settings, evaluations)
    found = [each for rule in _RULES for each in rule(known)]
    return sorted(found, key=lambda each: _SEVERITIES.index(each.severity))


class Watcher:
    """Judge of a live run: reports each finding once, in bounded memory and time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """`settings` is the config, as `fields.flatten` returns it."""
        self._settings = settings
        self._history = evidence.History()
        self._new = 0  # records since the last judgement
        self._seen: dict[str, float] = {}  # name: time_secs of the last judgement

    def tick(self, record: evidence.Record) -> list[str]:
        """Takes a record; returns the sentences on what it shows for the first time."""
        self._history.add(record)
        self._new += 1
        if self._new * _PART < len(self._history.records):
            return []
        self._new = 0
        now = record.get("time_secs", 0.0)
        sentences = []
        for each in _judge(self._history, self._settings):
            if now - self._seen.get(each.name, -math.inf) > _QUIET_SECS:
                sentences.append(f"{each.sentence} {each.cure}")
            self._seen[each.name] = now
        return sentences
