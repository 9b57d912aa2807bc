"""What a distribution says of itself is what a hundred thousand samples show."""

import numpy as np
import pytest
import torch

from impala_mp import nest, specs
from impala_mp.environments import spaces as environment_spaces
from impala_mp.networks.distributions import base, joint
from tests.support import spaces

_SAMPLES = 100_000


def _samples(distribution, logits, convert):
    """{name of an element: its values}, named from outside."""
    rows = logits.expand(_SAMPLES, -1)
    action = distribution.sample(rows, torch.Generator().manual_seed(0))
    action = convert(action)
    values = {}
    for path, leaf in nest.flatten_with_path(action):
        for index in np.ndindex(leaf.shape[1:]):
            name = f"{path}{list(index)}" if leaf.dim() > 1 else path
            values[name] = leaf[(slice(None), *index)].double()
    return values


@pytest.mark.parametrize("name", spaces.ACTIONS)
def test_every_action_space(name):
    spec = environment_spaces.action_spec(spaces._SPACES[name])
    distribution = joint.from_spec(spec)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(distribution.num_logits, generator=generator)
    # Said before clipping, where there are not bounds on both sides.
    convert = specs.to_environment(spec) if name != "half" else lambda action: action
    values = _samples(distribution, logits, convert)
    described = distribution.describe(logits)
    assert [element.name for element in described] == list(values)
    for element in described:
        own = values[element.name]
        if element.are_probabilities:
            seen = [(own == int(label)).double().mean() for label in element.labels]
        else:
            assert element.labels == ("mean", "deviation")
            seen = [own.mean(), own.std()]
        scale = 1.0 if element.are_probabilities else float(own.std())
        np.testing.assert_allclose(seen, element.numbers, atol=0.01 * scale)


def test_the_words():
    element = base.Element("arm/0[2]", ("mean", "deviation"), (0.314, 1.0), False)
    assert element.text == "arm/0[2]: mean 0.31, deviation 1.00"
    assert base.Element("", ("-1", "0"), (0.2, 0.8), True).text == "-1 0.20, 0 0.80"


def test_masked_actions_have_no_probability():
    (element,) = joint.from_spec(specs.DiscreteSpec(3)).describe(
        torch.tensor([0.0, -1e9, 0.0])
    )
    assert element.numbers == (0.5, 0.0, 0.5)
