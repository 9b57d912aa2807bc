"""Environments by name: custom factories and refusals."""

import gymnasium
import numpy as np
import pytest
import torch

from impala_mp import errors
from impala_mp.environments import factory, registered
from impala_mp.environments.catch import CatchVectorEnv
from tests.support import builders, counting


def one_env():
    return counting.Counter()


def many_envs(num_envs, rows=5):
    return CatchVectorEnv(num_envs, rows)


def no_env():
    return 3


def test_a_custom_factory():
    made = factory.make(builders.environment_settings(f"{__name__}:one_env"), 3)
    assert made.reset([1, 2, 3]).observation.shape == (3, 2)
    made = factory.make(
        builders.environment_settings(f"{__name__}:many_envs", rows=7), 3
    )
    assert made.reset([1]).observation.shape == (3, 7, 5)


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("CartPole-v9", {}, "not registered"),
        ("Cach", {}, "Did you mean 'Catch'"),
        ("nowhere:Env-v0", {}, "no module 'nowhere'"),
        (f"{__name__}:Contour-v0", {}, "and names no factory"),
        (
            f"{__name__}:no_env",
            {},
            r"returns a int\..* Return a gymnasium\.Env\.",
        ),
        (f"{__name__}:one_env", {"size": 3}, "which takes none"),
        ("ALE/Pnog-v5", {}, "Did you mean 'ALE/Pong-v5'"),
        (
            "PongNoFrameskip-v4",
            {},
            r"old Atari id.*config\.environment\.id=ALE/Pong-v5",
        ),
        ("ale_py:MsPacman-v0", {}, r"environment\.id=ALE/MsPacman-v5"),
        ("ale_py:ALE/Pnog-v5", {}, "Did you mean 'ALE/Pong-v5'"),
        ("NoGame-v4", {}, "is not registered"),
        (":one_env", {}, "is not registered"),
        (".relative:Env-v0", {}, "names no module"),
        ("no module\0:Env-v0", {}, "names no module"),
        ("Catch", {"row": 3}, "rows, columns"),
        ("Catch", {"rows": 1}, "rows >= 2"),
        ("Recall", {"num_cues": 1}, "num_cues >= 2"),
        ("Recall", {"delay": 2.5}, r"num_cues=4 and delay=2\.5\. It needs"),
        ("Catch", {"rows": "abc"}, r"rows='abc' and columns=5\. It needs whole"),
        (
            "Catch",
            {"columns": None},
            r"rows=10 and columns=None\..* Set config\.environment\.kwargs",
        ),
        ("ALE/Pong-v5", {"frame_skip": 3}, "frameskip"),
        ("tests.support.counting:Wordy-v0", {}, "Text.* at 'words'"),
    ],
)
def test_refusals(name, kwargs, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        factory.make(builders.environment_settings(name, **kwargs), 2)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("ALE/Pong-v5", "atari"),
        ("ale_py:ALE/Pong-v5", "atari"),
        ("PongNoFrameskip-v4", "atari"),
        ("MinAtar/Breakout-v1", "minatar"),
        ("minatar:MinAtar/Breakout-v1", "minatar"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, name, extra):
    def missing(module_name):
        raise ImportError(module_name)

    monkeypatch.setattr(registered.importlib, "import_module", missing)
    with pytest.raises(errors.BadInput, match=rf"impala_mp\[{extra}\]"):
        factory.make(builders.environment_settings(name), 2)


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("Hopper-v5", ModuleNotFoundError("glfw"), r"impala_mp\[mujoco\]"),
        ("Hopper-v5", gymnasium.error.DependencyNotInstalled("mj"), r"\[mujoco\]"),
        (
            "LunarLander-v3",
            gymnasium.error.DependencyNotInstalled("run pip install box2d"),
            r"LunarLander-v3'\): run pip install box2d",
        ),
    ],
    ids=str,
)
def test_a_package_that_a_module_needs_is_named(monkeypatch, name, error, sentence):
    """Some modules of Gymnasium raise when they are imported."""

    def load(entry_point):
        raise error

    monkeypatch.setattr(gymnasium.envs.registration, "load_env_creator", load)
    with pytest.raises(errors.BadInput, match=sentence):
        factory.make(builders.environment_settings(name), 2)


class _Plain(gymnasium.Env):
    """Declares that it draws, but takes no render_mode."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, greedy=False):
        if greedy:
            torch.set_default_dtype(torch.float64)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


class _Vector(CatchVectorEnv):
    def __init__(self, num_envs):
        super().__init__(num_envs)


class _LimitedVector(CatchVectorEnv):
    def __init__(self, num_envs, max_episode_steps):
        super().__init__(num_envs)
        self.limit = max_episode_steps


gymnasium.register("Undrawn-v0", _Plain)
for _name, _kind in (
    ("UnlimitedVector-v0", _Vector),
    ("LimitedVector-v0", _LimitedVector),
):
    gymnasium.register(_name, vector_entry_point=_kind, max_episode_steps=7)


def test_an_environment_without_a_render_mode_is_made_and_draws_nothing():
    settings = builders.environment_settings("Undrawn-v0")
    made = factory.make(settings, 1, render_mode="rgb_array")
    made.reset([0])
    with pytest.raises((errors.BadInput, NotImplementedError)):
        made.frame()


def test_a_limit_of_steps_as_gymnasiums_make_takes_it():
    settings = builders.environment_settings("Undrawn-v0", max_episode_steps=3)
    made = factory.make(settings, 1)
    made.reset([0])
    rows = [made.step(np.zeros(1, np.int64))[0] for _ in range(3)]
    assert [row.step_type.item() for row in rows] == [1, 1, 2]
    assert rows[-1].discount.item() == 1.0  # truncated


def test_a_limit_of_a_vector_environment_is_passed_on_or_refused():
    made = factory.make(builders.environment_settings("LimitedVector-v0"), 2)
    assert made.unwrapped.limit == 7
    with pytest.raises(errors.BadInput, match="max_episode_steps 7, which its vector"):
        factory.make(builders.environment_settings("UnlimitedVector-v0"), 2)


def test_the_default_dtype_of_torch_is_kept():
    factory.make(builders.environment_settings("Undrawn-v0", greedy=True), 1)
    assert torch.get_default_dtype() == torch.float32
