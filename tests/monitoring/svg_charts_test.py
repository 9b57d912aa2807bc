"""Charts: round ticks, few points, all of them inside."""

import math
import re

import pytest

from impala_mp.monitoring import svg_charts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 100.0, [0, 20, 40, 60, 80, 100]),
        (0.0, 200_000.0, [0, 50_000, 100_000, 150_000, 200_000]),
        (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (3.2, 3.9, [3.2, 3.4, 3.6, 3.8]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert svg_charts.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (250_000, "250k"), (1.5e6, "1.5M"), (2e9, "2G"), (5000, "5,000")],
)
def test_numbers_of_an_axis(value, text):
    assert svg_charts.short(value) == text


@pytest.mark.parametrize("count", [1, 2, 399, 400, 401, 5000])
def test_thinned_lines_keep_their_ends(count):
    points = svg_charts.thinned(range(count))
    assert len(points) == min(count, 400)
    assert (points[0], points[-1]) == (0, count - 1)
    assert points == sorted(set(points))


def _coordinates(svg):
    found = re.findall(r'\bd="([^"]*)"', svg) + re.findall(r'c[xy]="([^"]*)"', svg)
    return [float(n) for text in found for n in re.findall(r"-?[\d.]+", text)]


def _curve(line, **changed):
    given = {"band": [], "dots": [], "levels": [], "marks": [], **changed}
    return svg_charts.curve(line, label="return", **given)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e6, 1e-9])
def test_a_flat_line_is_drawn(value):
    for svg in (
        _curve([(0, value), (100, value)]),
        svg_charts.small([(0, value), (100, value)], 100, "x"),
    ):
        assert all(0 <= each <= 960 for each in _coordinates(svg))


def test_everything_is_inside():
    line = [(k, math.sin(k)) for k in range(100)]
    dots = [svg_charts.Dot(50, 3.0, 2.0, 9.0, "an evaluation")]
    svg = _curve(line, dots=dots, levels=[(-4.0, "random policy")])
    assert all(0 <= each <= 960 for each in _coordinates(svg))
    assert "<title>an evaluation</title>" in svg
    assert ">random policy</text>" in svg


def test_a_lucky_game_does_not_flatten_the_curve():
    line = [(k, float(k)) for k in range(101)]
    band = [(k, 0.0, 1e6) for k in range(101)]
    path = re.search(r'class="line"[^>]* d="([^"]*)"', _curve(line, band=band))[1]
    heights = [float(y) for y in re.findall(r",([\d.]+)", path)]
    assert max(heights) - min(heights) > 150


def test_a_level_far_away_is_left_out():
    points = [(0, 1.0), (10, 2.0)]
    assert "level" not in svg_charts.small(points, 10, "x", 40.0)
    assert "level" in svg_charts.small(points, 10, "x", 2.2)
    assert "level" not in svg_charts.small(points, 10, "x")


def test_one_evaluation_is_a_curve():
    dots = [svg_charts.Dot(50, 3.0, math.nan, math.nan, "<b>")]
    svg = _curve([], dots=dots)
    assert "whisker" not in svg
    assert "&lt;b&gt;" in svg
