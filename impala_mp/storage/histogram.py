"""Histogram of a record: a list in metrics.jsonl, and a picture in TensorBoard."""

from typing import NamedTuple


class RawHistogram(NamedTuple):
    """Histogram with its own buckets."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]  # upper limits
    bucket_counts: list[int]
