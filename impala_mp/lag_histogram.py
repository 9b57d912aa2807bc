"""Policy lag by transition, in fixed buckets: from the learner to TensorBoard."""

from typing import NamedTuple

import numpy as np

EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # updates; the last is open
NAMES = tuple(f"lag/from_{edge}" for edge in EDGES)  # in the learner's record


class RawHistogram(NamedTuple):
    """What TensorBoard's `add_histogram_raw` takes, in its order."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]  # upper ones
    bucket_counts: list[int]


def count(lags: np.ndarray, unroll_length: int) -> dict[str, float]:
    """Transitions by bucket, for the lags [N] of trajectories; NaN is in none."""
    counts = np.histogram(lags, [*EDGES, np.inf])[0] * unroll_length
    return dict(zip(NAMES, counts.astype(float).tolist(), strict=True))


def take(record: dict[str, float]) -> list[int]:
    """Moves the counts out of `record`; none if nothing was learned."""
    counts = [int(record.pop(name)) for name in NAMES]
    return counts if any(counts) else []


def raw(counts: list[int]) -> RawHistogram:
    """A bucket's lags count as its middle; the open one is drawn as twice its edge."""
    limits = [edge - 0.5 for edge in (*EDGES[1:], 2 * EDGES[-1])]
    middles = (np.array(limits) + [-0.5, *limits[:-1]]) / 2.0
    return RawHistogram(
        min=-0.5,
        max=limits[-1],
        num=sum(counts),
        sum=float(middles @ counts),
        sum_squares=float(middles**2 @ counts),
        bucket_limits=limits,
        bucket_counts=counts,
    )
