"""Layer norm of encoders: where it stands, and where it has no place."""

import numpy as np
import pytest
import torch

from impala_mp import errors, specs
from impala_mp.environments import spaces
from impala_mp.networks import encoders
from tests.support import builders, spaces as support_spaces


def _spec(name):
    return spaces.observation_spec(support_spaces._SPACES[name])


def _network(**overrides):
    return builders.config(**overrides).network


def _normalised(features):
    centred = features - features.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def test_layer_norm_in_an_mlp_is_before_each_activation():
    spec = specs.array_spec((3,), np.float32)
    own = {"network.layer_norm": True, "network.hidden_sizes": (8,)}
    made = encoders.make(_network(**own), spec)
    rows = torch.randn(5, 3)
    linear = made.encoder[0]
    expected = _normalised(linear(rows)).tanh()
    torch.testing.assert_close(made(rows), expected)


def test_layer_norm_in_convolutions_is_over_the_whole_picture():
    spec = specs.array_spec((10, 10, 4), np.float32)
    own = {"network.layer_norm": True, "network.torso": "minatar"}
    made = encoders.make(_network(**own), spec)
    pictures = torch.rand(5, 10, 10, 4).permute(0, 3, 1, 2)
    convolution, norm, _ = made.encoder.convolutions
    plain = convolution(pictures)
    expected = _normalised(plain.flatten(1)).view_as(plain)
    torch.testing.assert_close(norm(plain), expected, rtol=1e-4, atol=1e-5)
    assert norm.weight.shape == (16,)


def test_the_deep_network_refuses_layer_norm():
    spec = specs.array_spec((10, 10, 4), np.uint8)
    own = {"network.layer_norm": True, "network.torso": "deep"}
    with pytest.raises(errors.BadInput, match="network.layer_norm has no place in"):
        encoders.make(_network(**own), spec)


def _refuses_layer_norm(spec, **own):
    try:
        encoders.make(_network(**{"network.layer_norm": True, **own}), spec)
    except errors.BadInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("space", "own", "names"),
    [
        ("discrete", {}, "embedding"),
        ("multi", {"network.torso": "embedding"}, "embedding"),
        ("box", {"network.hidden_sizes": ()}, "mlp"),
    ],
)
def test_layer_norm_that_no_encoder_has_is_refused(space, own, names):
    message = _refuses_layer_norm(_spec(space), **own)
    assert f"network.layer_norm (True) has no effect with {names}. " in message
    assert "Set config.network.layer_norm=False, or such an encoder in" in message
    assert not _refuses_layer_norm(_spec(space), **{"network.torso": "mlp"})


def test_layer_norm_is_refused_where_all_parts_are_embeddings():
    parts = {"a": _spec("discrete"), "b": _spec("multi")}
    assert "no effect with embedding. " in _refuses_layer_norm(parts)
    own = {"network.encoders": {"a": "mlp"}}
    assert not _refuses_layer_norm(parts, **own)  # one has layers
    assert not _refuses_layer_norm({**parts, "c": _spec("box")})


def flattening(observation_spec, config):
    return torch.nn.Flatten()


def test_a_custom_encoder_may_read_layer_norm():
    name = f"{__name__}:flattening"
    assert not _refuses_layer_norm(_spec("box"), **{"network.torso": name})
    own = {"network.encoders": {"a": name}}
    assert not _refuses_layer_norm({"a": _spec("box"), "b": _spec("multi")}, **own)
