"""The 95 % interval of a mean: Student's t, and how often it holds the mean."""

import numpy as np
import pytest

from impala_mp.workers import confidence

# 97.5 % points of Student's t, from its tables.
_KNOWN = {1: 12.706, 2: 4.303, 5: 2.571, 10: 2.228, 11: 2.201, 12: 2.179, 15: 2.131}
_KNOWN |= {19: 2.093, 29: 2.045, 49: 2.010, 99: 1.984, 1000: 1.962}


@pytest.mark.parametrize(("freedom", "factor"), _KNOWN.items())
def test_the_factor_is_students(freedom, factor):
    values = np.arange(freedom + 1.0)
    error = values.std(ddof=1) / len(values) ** 0.5
    half = confidence.half_width(values)
    assert half / error == pytest.approx(factor, abs=0.005)


def test_of_each_column():
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert confidence.half_width(values) == pytest.approx([12.71, 0.0])
    assert list(confidence.half_width(values[:1])) == [0.0, 0.0]


@pytest.mark.parametrize("count", [3, 12, 20])
def test_the_interval_holds_the_mean_of_95_in_100_samples(count):
    values = np.random.default_rng(0).normal(size=(count, 40_000))
    held = np.abs(values.mean(0)) <= confidence.half_width(values)
    assert held.mean() == pytest.approx(0.95, abs=0.004)
