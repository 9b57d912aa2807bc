"""Policy lag per transition, in fixed buckets, from the learner to TensorBoard.

Each row of an unroll records the version that acted. So an unroll with more than one
version, which must not happen, is counted.
"""

import math

import numpy as np
import numpy.typing as npt

from impala_mp.storage import histogram

EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # updates; the last is open
STATISTICS = ("lag/mean", "lag/max", "lag/p50", "lag/p95")
HISTOGRAM = "lag/histogram"  # in the run's files
NAMES = tuple(f"lag/from_{edge}" for edge in EDGES)  # in the learner's record


class Lags:
    """Exact counts of the lags of all transitions learned since the last record."""

    def __init__(self) -> None:
        self.mixed_unrolls = 0  # trajectories with more than one version
        self.clear()

    def clear(self) -> None:
        """Resets the counts; called after each record."""
        self._counts = np.zeros(EDGES[-1] + 1, np.int64)  # by lag

    def add(self, newest: int, versions: npt.NDArray[np.int64]) -> int:
        """Adds transitions [T, N]; returns how many of the N have mixed versions."""
        mixed = int((versions != versions[0]).any(0).sum())
        rows = versions if mixed else versions[:1]  # one row counts for all
        lags = (newest - rows).ravel()
        counts = np.bincount(lags, minlength=len(self._counts))
        counts *= len(versions) // len(rows)
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self.mixed_unrolls += mixed
        return mixed

    def metrics(self) -> dict[str, float]:
        """Returns mean, maximum, percentiles and buckets; NaN and zeros if empty."""
        buckets = np.add.reduceat(self._counts, EDGES).tolist()
        histogram = dict(zip(NAMES, map(float, buckets), strict=True))
        total = self._counts.sum()
        if not total:
            return {**dict.fromkeys(STATISTICS, math.nan), **histogram}
        up_to = self._counts.cumsum()
        statistics = (
            self._counts @ np.arange(len(self._counts)) / total,
            self._counts.nonzero()[0][-1],
            *(np.searchsorted(up_to, share * total) for share in (0.5, 0.95)),
        )
        return {
            **dict(zip(STATISTICS, map(float, statistics), strict=True)),
            **histogram,
        }


def take(record: dict[str, float]) -> list[int]:
    """Removes the counts from `record`; returns [] if nothing was learned."""
    counts = [int(record.pop(name)) for name in NAMES]
    return counts if any(counts) else []


def raw(counts: list[int]) -> histogram.RawHistogram:
    """Makes a histogram with lags at their bucket's middle; the last ends at 128."""
    limits = [edge - 0.5 for edge in (*EDGES[1:], 2 * EDGES[-1])]
    middles = (np.array(limits) + [-0.5, *limits[:-1]]) / 2.0
    return histogram.RawHistogram(
        min=-0.5,
        max=limits[-1],
        num=sum(counts),
        sum=float(middles @ counts),
        sum_squares=float(middles**2 @ counts),
        bucket_limits=limits,
        bucket_counts=counts,
    )
