"""The sum tree against running sums, over random changes."""

import numpy as np
import pytest

from impala_mp.algorithms import sum_tree


def _naive(weights, sums):
    """The first index at which the running sum exceeds each of `sums`."""
    found = []
    for wanted in sums:
        running = 0.0
        for index, weight in enumerate(weights):  # noqa: B007
            running += weight
            if running > wanted:
                break
        found.append(index)
    return found


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 8, 9, 100])
def test_it_equals_running_sums_over_random_changes(capacity):
    rng = np.random.default_rng(capacity)
    tree, weights = sum_tree.SumTree(capacity), np.zeros(capacity)
    for _ in range(200):
        indices = rng.integers(capacity, size=rng.integers(1, 6))
        # Whole numbers: sums are exact, in whatever order.
        values = rng.integers(0, 4, len(indices)).astype(float)
        tree.set(indices, values)
        for index, value in zip(indices, values, strict=True):
            weights[index] = value
        assert tree.total == weights.sum()
        everywhere = np.arange(capacity)
        np.testing.assert_array_equal(tree[everywhere], weights)
        if tree.total:
            sums = np.arange(0.0, tree.total, 0.5)
            assert tree.find(sums).tolist() == _naive(weights, sums)


def test_a_weight_of_zero_is_never_found_whatever_the_rounding():
    rng = np.random.default_rng(0)
    for _ in range(300):
        tree = sum_tree.SumTree(37)
        weights = rng.random(37) * 10.0 ** rng.integers(-12, 12, 37)
        weights[rng.random(37) < 0.7] = 0.0
        weights[rng.integers(37)] = 1.0
        tree.set(np.arange(37), weights)
        ends = [0.0, np.nextafter(tree.total, 0.0), tree.total]
        found = tree.find(np.array([*ends, *rng.random(50) * tree.total]))
        assert (weights[found] > 0).all()


def test_sums_do_not_drift():
    rng = np.random.default_rng(0)
    tree, weights = sum_tree.SumTree(64), np.zeros(64)
    for _ in range(3000):
        indices = rng.integers(64, size=8)
        values = 10.0 ** rng.integers(-9, 9, 8)
        weights[indices] = values
        tree.set(indices, values)
    weights[:] = 1e-3
    tree.set(np.arange(64), weights)
    assert tree.total == pytest.approx(64e-3, rel=1e-12)
