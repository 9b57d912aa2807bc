"""Table of every metric: unit, meaning, healthy range, and what to turn.

Source of docs/reference/metrics.md and of TensorBoard's descriptions. A key in braces
stands for one part of a key, such as a task. Means are over the updates since the
record before.
"""

import functools
import re

from impala_mp.monitoring import metrics_of_learning, metrics_of_running

SECTIONS = (*metrics_of_learning.SECTIONS, *metrics_of_running.SECTIONS)
METRICS = tuple(metric for section in SECTIONS for metric in section.metrics)


def pattern(key: str) -> re.Pattern[str]:
    """Returns what the keys of a row look like."""
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(key)))


_PATTERNS = [(pattern(metric.key), metric) for metric in METRICS]
_BY_KEY = {metric.key: metric for metric in METRICS}


@functools.cache
def describe(key: str) -> str:
    """Returns the row of a metric in Markdown; "" for a key without a row."""
    key = key.removeprefix("progress/")
    rows = [metric for each, metric in _PATTERNS if each.fullmatch(key)]
    metric = _BY_KEY.get(key) or (rows[0] if rows else None)
    if metric is None:
        return ""
    parts = [f"{metric.meaning} Unit: {metric.unit}."]
    if metric.healthy:
        parts.append(f"**Healthy:** {metric.healthy}")
    if metric.turn:
        parts.append(f"**Turn:** {metric.turn}")
    return " ".join(parts)
