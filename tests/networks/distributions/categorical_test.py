"""Categorical against torch.distributions, by frequencies, and as a mixture."""

import pytest
import torch

from impala_mp import specs
from impala_mp.networks.distributions import categorical as categorical_lib, joint

_T, _B, _A = 5, 4, 6
_EPSILONS = [0.01, 0.3, 1.0]


def _logits(seed=0, num_actions=_A, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(_T, _B, num_actions, generator=generator)


def _actions():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(_A, (_T, _B), generator=generator)


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def categorical():
    return joint.from_spec(specs.DiscreteSpec(_A))


def test_sizes(categorical):
    assert (categorical.num_logits, categorical.encoding_size) == (_A, _A)


@pytest.mark.parametrize("scale", [0.0, 2.0, 10.0])
def test_equals_torch(categorical, scale):
    p_logits, q_logits = _logits(0, scale=scale), _logits(1, scale=scale)
    p = torch.distributions.Categorical(logits=p_logits)
    q = torch.distributions.Categorical(logits=q_logits)
    torch.testing.assert_close(
        categorical.log_prob(p_logits, _actions()), p.log_prob(_actions())
    )
    torch.testing.assert_close(categorical.entropy(p_logits), p.entropy())
    torch.testing.assert_close(
        categorical.kl(p_logits, q_logits), torch.distributions.kl_divergence(p, q)
    )


def test_logits_are_unnormalised(categorical):
    logits = _logits()
    for function in (
        lambda x: categorical.log_prob(x, _actions()),
        categorical.entropy,
        lambda x: categorical.kl(x, _logits(1)),
        lambda x: categorical.mix(x, 0.3),
        categorical.mode,
    ):
        torch.testing.assert_close(function(logits + 7.0), function(logits))


def test_mode_is_the_likeliest(categorical):
    logits = _logits()
    mode = categorical.mode(logits)
    assert mode.dtype == torch.int64
    best = torch.stack(
        [categorical.log_prob(logits, torch.full((_T, _B), a)) for a in range(_A)]
    ).amax(0)
    assert torch.equal(categorical.log_prob(logits, mode), best)


def test_samples_have_the_shape_and_type_of_actions(categorical):
    action = categorical.sample(_logits(), _generator(0))
    assert action.shape == (_T, _B)
    assert action.dtype == torch.int64


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_sampling_frequencies(categorical, epsilon):
    probs = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.04, 0.01], dtype=torch.float64)
    logits = categorical.mix(probs.log().float() + 3.0, epsilon)
    expected = (1.0 - epsilon) * probs + epsilon / _A
    num_samples = 100_000
    samples = categorical.sample(logits.expand(num_samples, _A), _generator(0))
    counts = torch.bincount(samples, minlength=_A).double()
    chi_square = ((counts - num_samples * expected) ** 2 / expected).sum() / num_samples
    assert chi_square < 20.5  # the 99.9 % quantile for 5 degrees of freedom


def test_rows_are_sampled_independently(categorical):
    # Two columns of the same distribution agree as often as chance has it.
    samples = categorical.sample(torch.zeros(20_000, 2, _A), _generator(0))
    agreement = (samples[:, 0] == samples[:, 1]).double().mean()
    deviation = (1 / _A * (1 - 1 / _A) / 20_000) ** 0.5
    assert abs(agreement - 1 / _A) < 4 * deviation


def test_the_impossible_is_never_sampled(categorical):
    logits = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf, -torch.inf, 0.0])
    samples = categorical.sample(logits.expand(5_000, _A), _generator(0))
    assert set(samples.tolist()) == {0, 2, 5}


def test_a_generator_makes_sampling_reproducible(categorical):
    logits = torch.zeros(100, _A)
    first, again, other = (
        categorical.sample(logits, _generator(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_generator_is_the_only_source_of_randomness(categorical):
    state = torch.random.get_rng_state()
    categorical.sample(_logits(), _generator(0))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("epsilon", _EPSILONS)
def test_mix_is_the_epsilon_mixture(categorical, epsilon):
    logits = _logits()
    mixed = categorical.mix(logits, epsilon)
    expected = (1.0 - epsilon) * logits.softmax(-1) + epsilon / _A
    torch.testing.assert_close(mixed.softmax(-1), expected)
    # Normalised already: what the actor records is log mu itself.
    torch.testing.assert_close(mixed.exp(), expected)


def test_mix_of_nothing_is_the_same_tensor_and_of_all_uniform(categorical):
    logits = _logits()
    assert categorical.mix(logits, 0.0) is logits
    assert categorical.mix(logits, 0.0, 1.0) is logits
    uniform = torch.full((_T, _B, _A), 1.0 / _A)
    torch.testing.assert_close(categorical.mix(logits, 1.0).exp(), uniform)


@pytest.mark.parametrize("epsilon", _EPSILONS)
@pytest.mark.parametrize("scale", [2.0, 100.0])
def test_importance_ratios_of_a_mixture_are_exact(categorical, epsilon, scale):
    """log pi(a)/mu(a) as V-trace gets it, also where pi underflows float32."""
    logits, actions = _logits(scale=scale), _actions()
    log_pi = categorical.log_prob(logits, actions)
    log_mu = categorical.log_prob(categorical.mix(logits, epsilon), actions)
    exact_log_pi = (
        logits.double().log_softmax(-1).gather(-1, actions[..., None])[..., 0]
    )
    exact_mu = (1.0 - epsilon) * exact_log_pi.exp() + epsilon / _A
    torch.testing.assert_close(
        (log_pi - log_mu).double(), exact_log_pi - exact_mu.log(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("epsilon", [0.0, 1e-48, 1e-30, 1e-3, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0, 20.0])
@pytest.mark.parametrize("scale", [2.0, 100.0])
def test_log_mu_is_exact_and_finite(categorical, epsilon, temperature, scale):
    """Against float64, also where pi or epsilon underflow float32."""
    logits = _logits(scale=scale)
    mixed = categorical.mix(logits, epsilon, temperature)
    assert mixed.isfinite().all()
    scaled = (logits.double() / temperature).log_softmax(-1)
    exact = (1.0 - epsilon) * scaled.exp() + epsilon / _A
    seen = exact > 1e-300
    error = (mixed.double().log_softmax(-1) - exact.log())[seen].abs()
    # Quotients in float32 are off by a rounding of their own size.
    assert error.max() <= 1e-5 + 1e-6 * float(logits.abs().max()) / temperature


def test_a_row_may_have_its_own_epsilon(categorical):
    logits = _logits()
    epsilons = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    mixed = categorical.mix(logits, epsilons.expand(_T, _B), 2.0)
    for column, epsilon in enumerate(epsilons.tolist()):
        torch.testing.assert_close(
            mixed[:, column].softmax(-1),
            categorical.mix(logits[:, column], epsilon, 2.0).softmax(-1),
        )


def test_encode_is_one_hot(categorical):
    encoded = categorical.encode(_actions())
    assert encoded.shape == (_T, _B, _A)
    assert encoded.dtype == torch.float32
    assert torch.equal(encoded.argmax(-1), _actions())
    assert torch.equal(encoded.sum(-1), torch.ones(_T, _B))
    assert torch.equal(encoded.amax(-1), torch.ones(_T, _B))


def test_one_action_is_no_choice():
    single = categorical_lib.Categorical(1)
    logits = _logits(num_actions=1)
    actions = torch.zeros(_T, _B, dtype=torch.int64)
    assert torch.equal(single.sample(logits, _generator(0)), actions)
    assert not single.log_prob(single.mix(logits, 0.5), actions).any()
    assert not single.entropy(logits).any()


def test_the_masked_has_probability_0_and_the_gradient_is_finite(categorical):
    logits = _logits().requires_grad_()
    allowed = torch.rand(_T, _B, _A, generator=_generator(5)) < 0.5
    allowed[..., 2] = True
    masked = categorical_lib.masked(logits, allowed)
    assert not masked.softmax(-1)[~allowed].any()
    samples = categorical.sample(masked.expand(200, *masked.shape), _generator(0))
    assert allowed.expand(200, *allowed.shape).gather(-1, samples[..., None]).all()
    action = categorical.mode(masked)
    terms = categorical.log_prob(masked, action) + categorical.entropy(masked)
    (terms + categorical.kl(masked, masked.detach() + 0.1)).sum().backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[~allowed].any()
    kept = logits.detach().masked_fill(~allowed, -torch.inf)
    expected = torch.distributions.Categorical(logits=kept)
    torch.testing.assert_close(categorical.entropy(masked.detach()), expected.entropy())


@pytest.mark.parametrize("temperature", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_a_mixture_leaves_the_masked_masked(categorical, epsilon, temperature):
    allowed = torch.tensor([True, False, True, False, False, True])
    masked = categorical_lib.masked(_logits(), allowed)
    mixed = categorical.mix(masked, epsilon, temperature).softmax(-1)
    scaled = (_logits() / temperature).masked_fill(~allowed, -torch.inf).softmax(-1)
    expected = (1.0 - epsilon) * scaled + epsilon / 3 * allowed
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-3)
    assert not mixed[..., ~allowed].any()
    assert not (categorical.normalise(masked + 40.0) - categorical.normalise(masked))[
        ..., ~allowed
    ].any()
