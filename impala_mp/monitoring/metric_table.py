"""Shape of the table of metrics: key, unit, meaning, healthy range, what to turn."""

from typing import NamedTuple


class Metric(NamedTuple):
    """One key of metrics.jsonl, or a pattern of keys."""

    key: str
    unit: str
    meaning: str
    healthy: str = ""  # range, or what it does in a healthy run
    turn: str = ""  # what to change when it is not healthy


class Section(NamedTuple):
    """Metrics under one heading."""

    title: str
    metrics: tuple[Metric, ...]
