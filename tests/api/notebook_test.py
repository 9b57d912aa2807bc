"""The plot of a training in a notebook, with a stand-in for IPython."""

import sys
import time
import types

import pytest

import impala_mp as im
from impala_mp import errors
from impala_mp.api import notebook, train

_SMALL = {
    "total_agent_steps": 320,
    "unroll_length": 10,
    "batch_size": 4,
    "actors": {"count": 1, "environments": 4},
    "learner.threads": 1,
    "evaluation": {"episodes": 4, "environments": 2},
    "runtime.mode": "lockstep",
}


class _Handle:
    def __init__(self, shown):
        self.update = shown.append


def _show(shown):
    def show(image, display_id):
        assert display_id is True
        shown.append(image)
        return _Handle(shown)

    return show


def test_an_image_is_shown_once_and_then_replaced(monkeypatch):
    monkeypatch.setattr(notebook, "_INTERVAL_SECS", 0.0)
    shown, images = [], iter([errors.BadInput("no records"), "a", OSError(), "b"])

    def draw():
        image = next(images)
        if isinstance(image, Exception):
            raise image
        return image

    plot = notebook.LivePlot(_show(shown), draw)
    for expected in ([], ["a"], ["a"], ["a", "b"]):
        while plot.secs():
            time.sleep(0.001)
        plot.tick()
        assert shown == expected


def test_it_waits_between_images():
    plot = notebook.LivePlot(_show([]), lambda: pytest.fail("it was not due"))
    assert 4.0 < plot.secs() <= 5.0
    plot.tick()


@pytest.mark.parametrize(
    ("shell", "found"),
    [(None, False), (object(), False), (types.SimpleNamespace(kernel=1), True)],
)
def test_only_a_kernel_shows_images(monkeypatch, shell, found):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert notebook.display() is None
    functions = types.SimpleNamespace(display=print)
    core = types.ModuleType("IPython.core")
    core.display_functions = functions
    package = types.ModuleType("IPython")
    package.core, package.get_ipython = core, lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.core", core)
    assert notebook.display() is (print if found else None)


def test_a_training_in_a_notebook_ends_with_its_curve(monkeypatch, tmp_path):
    pages = []

    def show(image, display_id):
        pages.append(image._repr_mimebundle_())
        return types.SimpleNamespace(update=lambda image: None)

    monkeypatch.setattr(train.notebook, "display", lambda: show)
    im.train("catch", workdir=tmp_path / "run", **_SMALL)
    (page,) = pages
    assert page["text/html"].startswith('<img src="data:image/png;base64,')
