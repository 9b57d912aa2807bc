"""Findings: warnings in words, of a whole record or of a run while it trains."""

from collections.abc import Iterable
from typing import Any

from impala_mp.monitoring import evidence, learning_rules, running_rules

_RULES = (*learning_rules.RULES, *running_rules.RULES)
# The supervisor reports each restart itself.
_LIVE_RULES = tuple(rule for rule in _RULES if rule is not running_rules.restarts)
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
    history = evidence.thinned(records)
    return _judge(_RULES, evidence.Evidence(history.records, settings, evaluations))


def _judge(rules: Iterable[Any], known: evidence.Evidence) -> list[evidence.Finding]:
    found = [each for rule in rules for each in rule(known)]
    return sorted(found, key=lambda each: _SEVERITIES.index(each.severity))


class Watcher:
    """Judge of a live run: reports each finding once, in bounded memory and time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """`settings` is the config, as `fields.flatten` returns it."""
        self._settings = settings
        self._history = evidence.thinned()
        self._new = 0  # records since the last judgement
        self._reported = set[str]()  # names
        self._gone: dict[str, float] = {}  # reported name: time_secs of its end

    def tick(self, record: evidence.Record) -> list[str]:
        """Takes a record; returns the sentences on what it shows for the first time."""
        self._history.add(record)
        self._new += 1
        if self._new * _PART < len(self._history.records):
            return []
        self._new = 0
        now = record.get("time_secs", 0.0)
        known = evidence.Evidence(self._history.records, self._settings)
        found = {each.name: each for each in _judge(_LIVE_RULES, known)}
        for name in self._reported - found.keys():
            self._gone.setdefault(name, now)
        again = {n for n in found if now - self._gone.pop(n, now) > _QUIET_SECS}
        new = [n for n in found if n not in self._reported or n in again]
        self._reported |= found.keys()
        return [f"{found[n].sentence} {found[n].cure}" for n in new]
