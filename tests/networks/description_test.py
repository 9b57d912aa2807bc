"""The lines on what happens to each array, and the warnings in them."""

import numpy as np
import pytest
from gymnasium import spaces as gym_spaces

from impala_mp import specs
from impala_mp.environments import spaces
from impala_mp.networks import description
from tests.support import builders

_BOX = gym_spaces.Box
_DISCRETE = gym_spaces.Discrete(4)


def _lines(observation, action=_DISCRETE, **overrides):
    config = builders.config(**overrides)
    environment = specs.EnvironmentSpec(
        spaces.observation_spec(observation), spaces.action_spec(action), 1
    )
    return description.sentences(config, environment)


@pytest.mark.parametrize(
    ("space", "overrides", "text"),
    [
        (
            _BOX(0, 255, (3, 64, 64), np.uint8),
            {},
            "uint8 [3, 64, 64], a picture of 64x64 with 3 planes, first (otherwise"
            " set config.network.image_layout), divided by"
            " 255, cast to float32, to the encoder nature.",
        ),
        (
            _BOX(0, 255, (4, 64, 64, 3), np.uint8),
            {},
            "uint8 [4, 64, 64, 3], a picture of 64x64 with 12 planes, stacked, divided"
            " by 255, cast to float32, to the encoder nature.",
        ),
        (
            _BOX(0, 1, (10, 10, 4), np.uint8),
            {},
            "uint8 [10, 10, 4], a picture of 10x10 with 4 planes, last, not divided"
            " (its bound is 1), cast to float32, to the encoder minatar.",
        ),
        (
            _BOX(0, 1, (3, 64, 64), np.float32),
            {"network.image_layout": "planes_last"},
            "float32 [3, 64, 64], a picture of 3x64 with 64 planes, last, values"
            " unchanged, to the encoder minatar.",
        ),
        (
            _BOX(np.uint8([0, 0]), np.uint8([1, 20]), dtype=np.uint8),
            {},
            "uint8 [2], each element divided by its bound (1 to 20), cast to float32,"
            " to the encoder mlp.",
        ),
        (
            _BOX(-np.inf, np.inf, (17,), np.float64),
            {"network.normalise_observations": True},
            "float64 [17], normalised to mean 0 and variance 1, to the encoder mlp.",
        ),
        (_DISCRETE, {}, "int64 [], categories, to the encoder embedding."),
    ],
)
def test_an_observation_is_described(space, overrides, text):
    assert _lines(space, **overrides)[0] == f"Observations: {text}"


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (_DISCRETE, "one of 4, drawn from a categorical."),
        (gym_spaces.MultiBinary(3), "[3], each 0 or 1 by its own probability."),
        (
            _BOX(-2.0, 2.0, (3,)),
            "float32 [3], tanh of a normal, scaled to -2 to 2.",
        ),
        (
            _BOX(-2e38, 2e38, (3,)),
            "float32 [3], a normal that is not scaled, because a bound of -2e+38 to"
            " 2e+38 is missing or as wide as the dtype; clipped to the bounds.",
        ),
    ],
)
def test_an_action_is_described(space, text):
    assert _lines(_DISCRETE, space)[-1] == f"Actions: {text}"


def test_an_action_by_its_value_is_described():
    text = "one of 4, the one of the largest value, or any with probability epsilon."
    assert _lines(_DISCRETE, algorithm="dqn")[-1] == f"Actions: {text}"


def test_every_array_has_a_line():
    nested = gym_spaces.Dict(
        {
            "arm": gym_spaces.Tuple([_BOX(-1, 1, (2,)), _DISCRETE]),
            "mask": _BOX(0, 1, (4,)),
        }
    )
    lines = _lines(nested, **{"agent.action_mask_key": "mask"})
    assert [line.partition(":")[0] for line in lines] == [
        "Observations arm/0",
        "Observations arm/1",
        "Observations mask",
        "Actions",
    ]
    assert lines[2].endswith("the action mask; no network input.")


@pytest.mark.parametrize(
    ("space", "warned"),
    [
        (_BOX(0, 255, (64, 64, 3), np.float32), True),
        (_BOX(0, 255, (3, 64, 64), np.int32), True),
        (_BOX(0, 255, (84, 84), np.float32), True),
        (_BOX(-1e8, 1e8, (3,), np.float32), True),
        (_BOX(0, 255, (64, 64, 3), np.uint8), False),
        (_BOX(0, 1, (64, 64, 3), np.float32), False),
        (_BOX(-200, 200, (3,), np.float32), False),
        (_BOX(-np.inf, np.inf, (3,), np.float32), False),
        (_BOX(-3.4e38, 3.4e38, (3,), np.float32), False),
    ],
)
def test_large_values_are_warned_of_unless_normalised(space, warned):
    assert ("Warning: " in _lines(space)[0]) == warned
    normalised = _lines(space, **{"network.normalise_observations": True})
    assert "Warning: " not in normalised[0]


def untouched(observation_spec, config):
    raise AssertionError("a description makes no network")


def test_a_custom_torso_gets_everything_unchanged():
    space = _BOX(0, 255, (3, 64, 64), np.uint8)
    (line, _) = _lines(space, **{"network.torso": f"{__name__}:untouched"})
    assert line == "Observations: uint8 [3, 64, 64], unchanged, to the custom torso."
