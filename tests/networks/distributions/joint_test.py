"""Distributions over all the other action spaces, against torch.distributions."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import distributions as reference

from impala_mp import errors, nest, specs
from impala_mp.environments import spaces as spaces_lib
from impala_mp.networks.distributions import joint
from tests.support import spaces as support_spaces

_N = 7  # rows


def _make(name):
    spec = spaces_lib.action_spec(support_spaces._SPACES[name])
    return spec, joint.from_spec(spec)


def _logits(distribution, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(_N, distribution.num_logits, generator=generator)


def _sample(distribution, logits, seed=1):
    return distribution.sample(logits, torch.Generator().manual_seed(seed))


def _box_spec(low, high, shape=(3,)):
    return spaces_lib.action_spec(spaces.Box(low, high, shape))


def _box(low, high, shape=(3,)):
    return joint.from_spec(_box_spec(low, high, shape))


def _twin(mean, log_std, low, high):
    """The squashed normal over the environment's actions, by torch's transforms."""
    base = reference.Normal(mean, log_std.exp())
    scale = (high - low) / 2.0
    steps = [
        reference.TanhTransform(),
        reference.AffineTransform(low + scale, scale),
    ]
    return reference.Independent(reference.TransformedDistribution(base, steps), 1)


@pytest.mark.parametrize("name", support_spaces.ACTIONS)
def test_shapes_and_types(name):
    spec, made = _make(name)
    logits = _logits(made)
    for action in (_sample(made, logits), made.mode(logits)):
        nest.map_structure(
            lambda leaf, own: (
                _assert_equal(leaf.shape, (_N, *own.array.shape)),
                _assert_equal(leaf.dtype, getattr(torch, own.array.dtype.name)),
            ),
            action,
            spec,
        )
        assert made.log_prob(logits, action).shape == (_N,)
        assert made.encode(action).shape == (_N, made.encoding_size)
        assert made.encode(action).dtype == torch.float32
    assert made.entropy(logits).shape == made.kl(logits, logits).shape == (_N,)
    assert len(made.free) == made.num_logits == logits.shape[-1]


def _assert_equal(a, b):
    assert a == b


@pytest.mark.parametrize("name", support_spaces.ACTIONS)
def test_the_environment_gets_actions_of_its_space(name):
    space = support_spaces._SPACES[name]
    spec, made = _make(name)
    to_environment = specs.to_environment(spec)
    actions = to_environment(_sample(made, _logits(made, scale=20.0)))
    arrays = nest.map_structure(torch.Tensor.numpy, actions)
    for row in range(_N):
        action = nest.map_structure(lambda leaf, row=row: leaf[row], arrays)
        if name == "discrete":
            action = int(action)
        assert space.contains(action), (action, space)


@pytest.mark.parametrize("name", support_spaces.ACTIONS)
def test_kl_and_entropy_are_expectations_of_log_probs(name):
    """By sampling: entropy = -E log p, KL = E (log p - log q)."""
    _, made = _make(name)
    p, q = (0.5 * _logits(made, seed)[:1] for seed in (0, 1))
    count = 200_000
    action = _sample(made, p.expand(count, -1))
    log_p = made.log_prob(p.expand(count, -1), action).double()
    log_q = made.log_prob(q.expand(count, -1), action).double()
    for value, draws in (
        (made.entropy(p), -log_p),
        (made.kl(p, q), log_p - log_q),
    ):
        error = abs(value.double().item() - draws.mean().item())
        assert error < 5.0 * draws.std().item() / math.sqrt(count) + 1e-6
    assert made.kl(p, p).abs().max() < 1e-6


@pytest.mark.parametrize("name", support_spaces.ACTIONS)
def test_normalised_logits_give_the_same_distribution(name):
    _, made = _make(name)
    logits = _logits(made)
    action = _sample(made, logits)
    torch.testing.assert_close(
        made.log_prob(made.normalise(logits), action), made.log_prob(logits, action)
    )


def test_a_box_within_bounds_equals_torchs_transforms():
    made = _box(-3.0, 1.0)
    logits = _logits(made).double()
    mean, log_std = logits.chunk(2, -1)
    twin = _twin(mean, log_std, -3.0, 1.0)
    u = _sample(made, logits)
    action = specs.to_environment(_box_spec(-3.0, 1.0))(u.double()).double()
    expected = twin.log_prob(-1.0 + 2.0 * torch.tanh(u))
    torch.testing.assert_close(made.log_prob(logits, u), expected)
    assert (action - (-1.0 + 2.0 * torch.tanh(u))).abs().max() < 1e-6


@pytest.mark.parametrize("mean", [0.0, 3.0, 20.0, -60.0])
def test_densities_are_exact_at_the_bounds(mean):
    """Where tanh(u) rounds to 1: log N(u) - log(4 / (exp(u) + exp(-u))^2)."""
    made = _box(-1.0, 1.0, (1,))
    logits = torch.tensor([[mean, 0.3]])
    u = torch.tensor([[mean + 0.5]])
    assert made.log_prob(logits, u).isfinite().all()
    exact = u.double()
    slope = math.log(4.0) - 2.0 * torch.logaddexp(exact, -exact)
    normal = reference.Normal(mean, math.exp(0.3)).log_prob(exact)
    torch.testing.assert_close(
        made.log_prob(logits, u).double(), (normal - slope)[:, 0], rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        made.log_prob(logits, u) - made.log_prob(logits + 0.1, u),
        (
            reference.Normal(mean, math.exp(0.3)).log_prob(exact)
            - reference.Normal(mean + 0.1, math.exp(0.4)).log_prob(exact)
        )[:, 0].float(),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_box_without_bounds_is_a_plain_normal():
    made = _box(-np.inf, np.inf)
    logits = _logits(made)
    mean, log_std = logits.chunk(2, -1)
    twin = reference.Independent(reference.Normal(mean, log_std.exp()), 1)
    action = _sample(made, logits)
    to_environment = specs.to_environment(_box_spec(-np.inf, np.inf))
    assert torch.equal(to_environment(action), action)
    torch.testing.assert_close(made.log_prob(logits, action), twin.log_prob(action))
    torch.testing.assert_close(made.entropy(logits), twin.entropy())
    other = reference.Independent(reference.Normal(mean + 1, log_std.exp() * 2), 1)
    shifted = torch.cat([mean + 1, log_std + math.log(2.0)], -1)
    torch.testing.assert_close(
        made.kl(logits, shifted), reference.kl_divergence(twin, other)
    )


def test_yes_or_no_equals_torchs():
    _, made = _make("binary")
    logits, others = _logits(made, 0, 3.0), _logits(made, 1, 3.0)
    p, q = (
        reference.Independent(reference.Bernoulli(logits=each), 1)
        for each in (logits, others)
    )
    action = _sample(made, logits)
    torch.testing.assert_close(
        made.log_prob(logits, action), p.log_prob(action.float())
    )
    torch.testing.assert_close(made.entropy(logits), p.entropy())
    torch.testing.assert_close(made.kl(logits, others), reference.kl_divergence(p, q))


def test_a_joint_action_is_the_sum_of_its_parts():
    spec, made = _make("dict")
    logits = _logits(made)
    action = _sample(made, logits)
    parts = [joint.from_spec(leaf) for leaf in nest.flatten(spec)]
    own = logits.split([part.num_logits for part in parts], -1)
    leaves = nest.flatten(action)
    expected = sum(
        part.log_prob(mine, leaf)
        for part, mine, leaf in zip(parts, own, leaves, strict=True)
    )
    torch.testing.assert_close(made.log_prob(logits, action), expected)
    assert set(action) == {"mode", "arm", "gears"}
    assert isinstance(action["arm"], tuple)


@pytest.mark.parametrize("name", ["binary", "multi"])
@pytest.mark.parametrize("epsilon", [1e-30, 0.2, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_mixtures_part_by_part(name, epsilon, temperature):
    _, made = _make(name)
    logits = _logits(made, scale=30.0)
    mixed = made.mix(logits, epsilon, temperature)
    assert mixed.isfinite().all()
    scaled = logits.double() / temperature
    if name == "binary":
        expected = (1 - epsilon) * scaled.sigmoid() + epsilon / 2
        actual = mixed.double().sigmoid()
    else:
        sizes = [2, 3, 4]
        expected = torch.cat(
            [
                (1 - epsilon) * each.softmax(-1) + epsilon / each.shape[-1]
                for each in scaled.split(sizes, -1)
            ],
            -1,
        )
        actual = made.normalise(mixed).double().exp()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)
    each_row = torch.full((_N,), epsilon, dtype=torch.float64)
    torch.testing.assert_close(made.mix(logits, each_row, temperature), mixed)


def test_a_temperature_widens_a_normal_as_a_power_does():
    made = _box(-np.inf, np.inf, (1,))
    logits = torch.tensor([[0.5, -0.2]])
    mixed = made.mix(logits, 0.0, 3.0)
    points = torch.linspace(-4.0, 4.0, 9)[:, None]
    power = made.log_prob(logits, points) / 3.0
    difference = made.log_prob(mixed, points) - power
    assert difference.std() < 1e-5  # a constant: the power's normalisation


def test_a_box_takes_no_epsilon():
    for spec in (_box_spec(-1.0, 1.0), _make("tuple")[0]):
        with pytest.raises(errors.BadInput, match="a finite number of actions"):
            specs.check_epsilon(spec, 0.1)
        specs.check_epsilon(spec, 0.0)
    specs.check_epsilon(_make("multi")[0], 0.1)
    with pytest.raises(ValueError, match="no uniform"):
        _box(-1.0, 1.0).mix(torch.zeros(1, 6), 0.1)
