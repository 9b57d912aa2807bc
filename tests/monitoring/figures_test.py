"""Axes, labels and files of pictures."""

import numpy as np
import pytest

from impala_mp import errors
from impala_mp.monitoring import figures

_NONE = np.zeros(0)


@pytest.mark.parametrize("seed", range(20))
def test_the_axis_hides_no_mean_and_no_evaluation(seed):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-6, 7)
    means, others, usual, near = (
        scale * rng.standard_cauchy(rng.integers(1, 30)) for _ in range(4)
    )
    axis = figures.y_axis(means, np.append(others, np.nan), usual, near)
    for values in (means, others, usual):
        assert axis.low < values.min() <= values.max() < axis.high


@pytest.mark.parametrize("value", [0.0, 1.0, -21.0, 500.0, 1e-9, 1e12])
def test_a_constant_curve_is_in_the_middle(value):
    axis = figures.y_axis(
        np.full(9, value), _NONE, np.full(9, value), np.full(9, value)
    )
    assert (axis.low + axis.high) / 2 == pytest.approx(value)
    assert axis.high - axis.low == pytest.approx(abs(value) or 2.0)


def test_noise_of_rounding_is_a_constant():
    axis = figures.y_axis(np.array([1.0, 1.0 + 1e-12]), _NONE, _NONE, _NONE)
    assert axis.high - axis.low > 0.9


def test_far_games_do_not_flatten_the_mean():
    means, games = np.linspace(10.0, 20.0, 50), np.array([5.0, 25.0, 1e6, -1e6])
    axis = figures.y_axis(means, _NONE, np.array([8.0, 22.0]), games)
    assert axis.linear is None
    assert axis.low < 5.0 < 25.0 < axis.high
    assert axis.high - axis.low < 30.0


def test_a_mean_that_outliers_moved_makes_the_axis_logarithmic():
    """The usual games keep most of the axis, and the mean is inside."""
    means, usual = np.array([10.0, 20.0, 1e4]), np.array([5.0, 30.0])
    axis = figures.y_axis(means, _NONE, usual, np.array([1e6]))
    assert axis.linear == 30.0
    assert axis.low < 5.0 < 1e4 < axis.high
    # Greedy evaluations are far from sampled games, and no outliers.
    assert figures.y_axis(means, means, usual, _NONE).linear is None


def test_steps_are_counted_in_thousands_and_millions():
    for high, expected in ((2e5, "200k"), (1.5e6, "1.5M"), (3e9, "3G"), (800, "800")):
        figure, axes = figures.make()
        figures.set_x(axes, "agent steps", high)
        axes.set_xticks([0.0, high])
        figure.draw_without_rendering()
        assert [t.get_text() for t in axes.get_xticklabels()] == ["0", expected]
        assert axes.get_xlim()[0] == 0.0


def test_an_axis_without_a_high_end_is_that_of_the_data():
    _, axes = figures.make()
    axes.plot([-3.0, 5.0], [0.0, 1.0])
    figures.set_x(axes, "lag/mean", None)
    assert axes.get_xlim()[0] < -3.0


@pytest.mark.parametrize(
    "text", ["$x", "$\\frac$", "_hidden", "a\nb\x1b[0m", "é" * 999]
)
def test_any_text_can_be_a_label(tmp_path, text):
    figure, axes = figures.make()
    (line,) = axes.plot([0.0, 1.0], label=figures.label(text))
    figures.set_x(axes, text, 1.0)
    figures.set_y(axes, text, figures.Axis(0.0, 1e5, 10.0))
    figures.add_legend(figure, [line])
    for name in ("a.png", "a.svg"):
        figures.write(figure, str(tmp_path / name))
    (shown,) = [t.get_text() for t in figure.legends[0].get_texts()]
    assert len(shown) <= 60
    assert shown.isprintable()


def test_the_legend_covers_nothing():
    figure, axes = figures.make()
    handles = [axes.plot([0, 1], label=f"line {i} of many lines")[0] for i in range(9)]
    figures.add_legend(figure, [*handles, *axes.plot([1, 0], label="")])
    figure.draw_without_rendering()
    legend, area = figure.legends[0], axes.get_tightbbox()
    assert len(legend.get_texts()) == 9
    assert not legend.get_window_extent().overlaps(area)
    assert figure.bbox.containsx(legend.get_window_extent().x0)
    assert figure.bbox.containsx(legend.get_window_extent().x1)


def test_a_picture_is_the_same_each_time(tmp_path):
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        found = []
        for name in ("a", "b"):
            figure, axes = figures.make()
            axes.plot([0.0, 1.0])
            figures.write(figure, str(tmp_path / f"{name}{ending}"))
            found.append((tmp_path / f"{name}{ending}").read_bytes())
        assert found[0] == found[1]
        assert found[0].startswith(start)


def test_another_ending_is_refused():
    figures.check_ending("path", "a.svg")
    with pytest.raises(errors.BadInput, match=r"path \('a.pdf'\) must end in .png or"):
        figures.check_ending("path", "a.pdf")
