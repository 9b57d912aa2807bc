"""Sum tree: draws in proportion to weights that change, many at a time."""

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


class SumTree:
    """Tree over `capacity` weights, 0 at first; changes and draws take log2 steps.

    Prioritised replay draws from it (Schaul et al. 2016, appendix B.2.1).

    A complete binary tree in one array: node i is the sum of its children, 2i and 2i+1.
    A change computes sums from the children, never by adding a difference, so that
    rounding errors do not grow with the number of changes.
    """

    def __init__(self, capacity: int) -> None:
        self._depth = max(1, (capacity - 1).bit_length())
        self._first = 1 << self._depth  # node of index 0
        self._nodes = np.zeros(2 * self._first)
        self._weights = self._nodes[self._first : self._first + capacity]

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._nodes[1])

    def __getitem__(self, indices: Indices) -> Weights:
        found: Weights = self._weights[indices]
        return found

    def set(self, indices: Indices, weights: Weights) -> None:
        """Changes the weights at `indices`; the last one counts for equal indices.

        Args:
          indices: int64 [N], in [0, capacity).
          weights: float64 [N], at least 0.
        """
        self._weights[indices] = weights
        nodes = indices + self._first
        for _ in range(self._depth):
            nodes = np.unique(nodes >> 1)
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, sums: Weights) -> Indices:
        """Returns the first index whose running sum of weights exceeds each of `sums`.

        An index of weight 0 is never found. The total must be above 0.

        Args:
          sums: [N], in [0, total).
        """
        rest = sums.copy()
        nodes = np.ones(len(sums), np.int64)
        for _ in range(self._depth):
            nodes *= 2
            left = self._nodes[nodes]
            # Rounding may leave a rest where there is nothing to the right.
            right = (rest >= left) & (self._nodes[nodes + 1] > 0.0)
            rest -= np.where(right, left, 0.0)
            nodes += right
        return nodes - self._first
