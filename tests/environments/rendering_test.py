"""Pictures of environments."""

import gymnasium
import numpy as np
import pytest

from impala_mp import errors
from impala_mp.environments import factory, vector
from impala_mp.environments.catch import CatchVectorEnv
from tests.support import builders


@pytest.mark.parametrize(
    "name", ["Catch", "Recall", "ALE/Pong-v5", "MinAtar/Breakout-v1"]
)
def test_pictures(name):
    environment = factory.make(
        builders.environment_settings(name), 1, render_mode="rgb_array"
    )
    environment.reset([0])
    frame = environment.frame()
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    assert frame.dtype == np.uint8
    assert frame.max() > 127  # not the shade of black that 1.0 is among bytes
    environment.close()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("pygame is not installed, run", r"pip install 'impala_mp\[classic-control\]'"),
        ("no MuJoCo here", r"renders no pictures\. no MuJoCo here"),
        (RuntimeError("no valid OpenGL context"), r"context\. .* MUJOCO_GL=egl"),
        (ZeroDivisionError("of the user's"), "pictures. ZeroDivisionError: of the"),
    ],
    ids=str,
)
def test_pictures_that_need_something_more_say_what(monkeypatch, missing, sentence):
    if isinstance(missing, str):
        missing = gymnasium.error.DependencyNotInstalled(missing)

    def render(self):
        raise missing

    monkeypatch.setattr(CatchVectorEnv, "render", render)
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    with pytest.raises(errors.BadInput, match=sentence):
        environment.frame()


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (np.full((4, 6), 7, np.uint8), [7, 7, 7]),
        (np.full((4, 6, 1), 0.2), [51, 51, 51]),
        (np.full((4, 6, 4), [1, 2, 3, 4], np.uint8), [1, 2, 3]),
    ],
    ids=["grey", "one channel, from 0 to 1", "RGBA"],
)
def test_pictures_of_other_forms(monkeypatch, drawn, expected):
    monkeypatch.setattr(CatchVectorEnv, "render", lambda self: (drawn,))
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    frame = environment.frame()
    assert frame.shape == (4, 6, 3)
    assert frame.dtype == np.uint8
    assert (frame == expected).all()


def test_pictures_of_all_copies_as_one_array(monkeypatch):
    drawn = np.full((1, 4, 6, 3), True)
    monkeypatch.setattr(CatchVectorEnv, "render", lambda self: drawn)
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    assert (environment.frame() == 255).all()


def _no_render(self):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("render", "words"),
    [
        (_no_render, "let the factory take render_mode"),
        (lambda self: (None,), "let the factory take render_mode"),
        (lambda self: ("##",), r"a picture\. Return uint8"),
        (lambda self: (np.zeros(5),), r"float64 \[5\]\. It must return a picture"),
    ],
)
def test_frames_that_are_no_picture_are_refused(monkeypatch, render, words):
    monkeypatch.setattr(CatchVectorEnv, "render", render)
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    with pytest.raises(errors.BadInput, match=words):
        environment.frame()
