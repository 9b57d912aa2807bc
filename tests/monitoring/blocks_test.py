"""Curves of characters."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from impala_mp.monitoring import blocks

_VALUES = st.lists(st.floats(-1e299, 1e299) | st.just(math.nan), max_size=30)


def test_a_curve_of_known_values():
    assert blocks.curve([0.0, 1.0, 2.0, 3.0], 1) == ["▁▃▆█"]
    assert blocks.curve([0.0, 0.5, 1.0], 2) == [" ▁█", "▁██"]
    assert blocks.curve([0.0, 0.5, 1.0], 2, ascii_only=True) == ["  #", ".##"]
    assert blocks.sparkline([0, 1, 2, 3, 4, 5], ascii_only=True) == "_.-=*#"


def test_equal_values_have_half_the_height():
    assert blocks.curve([7.0, 7.0], 2) == ["▁▁", "██"]


def test_gaps_are_empty():
    assert blocks.curve([math.nan, 1.0, math.inf, 2.0], 1) == [" ▁ █"]
    assert blocks.curve([math.nan], 2) == [" ", " "]


@hypothesis.settings(deadline=None)
@hypothesis.given(_VALUES, st.integers(1, 9), st.booleans())
def test_the_higher_value_has_the_higher_column(values, height, ascii_only):
    rows = blocks.curve(values, height, ascii_only)
    assert [len(row) for row in rows] == [len(values)] * height
    marks = " .:#" if ascii_only else " ▁▂▃▄▅▆▇█"
    tall = [sum(marks.index(row[i]) for row in rows) for i in range(len(values))]
    known = sorted((v, t) for v, t in zip(values, tall, strict=True) if v == v)
    assert [t for _, t in known] == sorted(t for _, t in known)
    assert all(t >= 1 for _, t in known)
    for i in range(len(values)):  # no hole under a mark
        column = [row[i] for row in rows]
        assert "".join(column).lstrip(" ").count(" ") == 0


def test_columns_average_and_fill():
    xs, ys = [0.0, 1.0, 2.0, 9.0, 10.0], [0.0, 2.0, 4.0, 10.0, 20.0]
    np.testing.assert_allclose(blocks.columns(xs, ys, 2), [2.0, 15.0])
    np.testing.assert_allclose(
        blocks.columns([0.0, 9.0], [0.0, 9.0], 10), np.arange(10.0)
    )
    np.testing.assert_allclose(blocks.columns([3.0], [7.0], 3), [7.0, 7.0, 7.0])
    assert blocks.columns([], [], 3).size == 0


@pytest.mark.parametrize("width", [1, 2, 77])
def test_columns_stay_in_the_range_of_the_points(width):
    rng = np.random.default_rng(0)
    xs, ys = np.sort(rng.uniform(size=500)), rng.normal(size=500)
    found = blocks.columns(xs.tolist(), ys.tolist(), width)
    assert found.shape == (width,)
    assert ys.min() <= found.min()
    assert found.max() <= ys.max()
