"""Fields of the network that nothing reads are refused when a run begins."""

import gymnasium as gym
import numpy as np
import pytest

from impala_mp import errors
from impala_mp.config import base, validation
from impala_mp.environments import spaces
from impala_mp.networks import unused_fields
from impala_mp.runtime import program
from impala_mp.specs import EnvironmentSpec
from tests.support import builders

_NUMBERS = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
_PICTURE = gym.spaces.Box(0, 255, (84, 84, 4), np.uint8)
_GREY = gym.spaces.Box(0, 255, (84, 84), np.uint8)
_BOTH = gym.spaces.Dict({"numbers": _NUMBERS, "picture": _PICTURE})


def _network(space, privileged="", **own):
    config = base.get_base_config()
    config.network.update(own)
    spec = EnvironmentSpec(
        spaces.observation_spec(space),
        spaces.action_spec(gym.spaces.Discrete(3)),
        1,
        privileged=privileged,
    )
    return config.network, spec


@pytest.mark.parametrize(
    ("space", "own", "needed"),
    [
        (_NUMBERS, {"joint_size": 32}, "several arrays"),
        (_NUMBERS, {"image_layout": "planes_first"}, "pictures with planes"),
        (_GREY, {"image_layout": "planes_last"}, "pictures with planes"),
        (_PICTURE, {"torso": "mlp", "image_layout": "planes_last"}, "pictures"),
    ],
)
def test_a_field_that_nothing_reads_is_refused(space, own, needed):
    (field,) = own.keys() - {"torso"}
    with pytest.raises(errors.BadInput) as error:
        unused_fields.check([_network(space, **own)])
    text = str(error.value)
    assert text.startswith(f"network.{field} ({own[field]!r}) has no effect without ")
    assert needed in text
    assert f"Leave config.network.{field} at " in text


@pytest.mark.parametrize(
    ("space", "own"),
    [
        (_BOTH, {"joint_size": 32}),
        (_BOTH, {"image_layout": "planes_last"}),
        (_PICTURE, {"image_layout": "planes_last"}),
        (_NUMBERS, {"torso": "tests.support.networks:Torso", "joint_size": 32}),
        (_BOTH, {"encoders": {"picture": "a.b:C"}, "image_layout": "planes_last"}),
    ],
)
def test_a_field_that_an_encoder_reads_is_taken(space, own):
    unused_fields.check([_network(space, **own)])


def test_what_only_values_see_may_read_it():
    own = {"image_layout": "planes_first"}
    space = gym.spaces.Dict({"state": _PICTURE, "view": _NUMBERS})
    unused_fields.check([_network(space, privileged="state", **own)])
    view = gym.spaces.Dict({"view": _NUMBERS})
    with pytest.raises(errors.BadInput, match="image_layout"):
        unused_fields.check([_network(view, **own)])


def test_one_of_several_policies_is_enough():
    own = {"image_layout": "planes_first"}
    unused_fields.check([_network(_PICTURE, **own), _network(_NUMBERS, **own)])
    with pytest.raises(errors.BadInput, match="image_layout"):
        unused_fields.check([_network(_PICTURE), _network(_NUMBERS, **own)])


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_of_an_older_version_resumes(stored):
    config = builders.config(**{"network.joint_size": 32})
    live, environments = validation.validate(config, 2), program.probe(config)
    parts = (config, live, environments, 2, config if stored else None)
    if stored:
        assert program.prepare(*parts)
        return
    with pytest.raises(errors.BadInput, match="joint_size"):
        program.prepare(*parts)
