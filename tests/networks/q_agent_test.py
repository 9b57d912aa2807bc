"""The Q agent: exact epsilon-greedy probabilities, masks, steps equal an unroll."""

import itertools

import numpy as np
import pytest
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.networks import agent, q_network
from impala_mp.networks.distributions import categorical
from tests.support import builders

_VECTOR = specs.array_spec((7,), np.float32)
_ACTIONS = 5


def _make(observation=_VECTOR, action=None, **overrides):
    environment = specs.EnvironmentSpec(
        observation, action or specs.DiscreteSpec(_ACTIONS), 1
    )
    torch.manual_seed(0)
    config = builders.config(**{"algorithm": "dqn", "target.period": 5, **overrides})
    return agent.make(config, environment)


def _rows(rows, batch, seed=0):
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(rows, batch, 7)).astype("float32")
    return types.TimeStep(
        step_type=torch.from_numpy(rng.integers(3, size=(rows, batch)).astype("uint8")),
        reward=torch.from_numpy(rng.normal(size=(rows, batch)).astype("float32")),
        discount=torch.ones(rows, batch),
        observation=torch.from_numpy(observation),
    )


def _exact(q_values, allowed, epsilon):
    """Probabilities of epsilon-greedy in float64, by their definition."""
    q_values = np.where(allowed, q_values, -np.inf)
    best = q_values.argmax(-1)
    chances = epsilon * allowed / allowed.sum(-1, keepdims=True)
    np.put_along_axis(
        chances,
        best[:, None],
        np.take_along_axis(chances, best[:, None], -1) + 1.0 - epsilon,
        -1,
    )
    return chances


def _masks(rows):
    every = itertools.product((False, True), repeat=_ACTIONS)
    return np.array([mask for mask in every if any(mask)] * rows)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8, 1e-3, 0.05, 0.5, 1.0])
def test_log_probs_are_exactly_those_of_epsilon_greedy(epsilon):
    allowed = _masks(8)
    q_values = np.random.default_rng(0).normal(size=allowed.shape).astype("float32")
    masked = categorical.masked(torch.tensor(q_values), torch.tensor(allowed))
    distribution = categorical.Categorical(_ACTIONS)
    logits = distribution.mix(q_network.greedy_logits(masked), epsilon)
    found = torch.log_softmax(logits, -1).double().numpy()
    expected = _exact(q_values, allowed, epsilon)
    likely = expected > 0.0
    assert np.abs(found[likely] - np.log(expected[likely])).max() <= 1.2e-6
    assert (np.exp(found[~allowed]) == 0.0).all()
    assert found[~likely].max(initial=-100.0) <= -99.0


def test_draws_follow_epsilon_greedy():
    """Chi-square of 200,000 draws with a mask; 26 is exceeded once in 100,000 runs."""
    allowed = np.array([[True, True, False, True, True]])
    q_values = np.array([[0.3, 2.0, 9.0, -1.0, 1.99]], np.float32)
    masked = categorical.masked(torch.tensor(q_values), torch.tensor(allowed))
    distribution = categorical.Categorical(_ACTIONS)
    logits = distribution.mix(q_network.greedy_logits(masked), 0.3)
    count = 200_000
    generator = torch.Generator().manual_seed(0)
    drawn = distribution.sample(logits.expand(count, -1), generator).numpy()
    found = np.bincount(drawn, minlength=_ACTIONS)
    expected = count * _exact(q_values, allowed, 0.3)[0]
    assert found[2] == 0
    there = allowed[0]
    chi_square = ((found - expected)[there] ** 2 / expected[there]).sum()
    assert chi_square < 26.0


def test_equal_values_have_one_greedy_action():
    logits = q_network.greedy_logits(torch.ones(1, 3))
    assert logits.tolist() == [[0.0, -100.0, -100.0]]


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("core", ["none", "lstm", "gru", "gtrxl"])
def test_steps_equal_an_unroll(core, dueling):
    policy = _make(
        **{
            "network.core": core,
            "network.last_action": True,
            "network.last_reward": True,
            "network.dueling": dueling,
            "network.layer_norm": True,
        }
    )
    rows = _rows(9, 4)
    state = first = policy.initial_state(4)
    outputs = []
    with torch.no_grad():
        for row in range(9):
            one = nest.map_structure(lambda leaf, row=row: leaf[row], rows)
            output, state = policy.step(one, state, epsilon=0.2)
            outputs.append(output)
        recorded = types.AgentOutput(
            *(torch.stack(leaf) for leaf in zip(*outputs, strict=True))
        )
        actions = recorded.action[:-1]
        unrolled = policy.unroll(rows, actions, first)
    torch.testing.assert_close(unrolled.baseline, recorded.baseline)
    greedy = policy.distribution.mix(q_network.greedy_logits(unrolled.q_values), 0.2)
    torch.testing.assert_close(greedy, recorded.policy_logits)
    recorded = recorded._replace(baseline=recorded.baseline[:-1])
    assert policy.differences(unrolled, recorded, 0.2, 1.0).max() < 1e-5
    recorded.baseline[3, 1] += 0.5
    assert policy.differences(unrolled, recorded, 0.2, 1.0).argmax() == 3 * 4 + 1


def test_the_greedy_action_is_the_best_for_any_epsilon():
    policy = _make()
    rows = _rows(1, 64)
    one = nest.map_structure(lambda leaf: leaf[0], rows)
    state = policy.initial_state(64)
    with torch.no_grad():
        q_values = policy.unroll(rows, None, state).q_values[0]
        output, _ = policy.step(one, state, epsilon=0.9, greedy=True)
    assert torch.equal(output.action, q_values.argmax(-1))
    assert torch.equal(output.baseline, q_values.amax(-1))


def test_dueling_values_are_a_value_and_centred_advantages():
    policy = _make(**{"network.dueling": True})
    head = policy.network.baseline
    features = torch.randn(3, 16)
    advantages = head(features) - head.value(features)
    torch.testing.assert_close(advantages.sum(-1), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "action",
    [
        specs.MultiDiscreteSpec((2,), (2, 3), (0, 0)),
        specs.BoxSpec((1,), np.dtype(np.float32), (-1.0,), (1.0,)),
        {"arm": specs.DiscreteSpec(3)},
    ],
    ids=["multi", "box", "dict"],
)
def test_other_actions_are_refused(action):
    with pytest.raises(errors.BadInput, match="algorithm=dqn needs one Discrete space"):
        _make(action=action)


def test_the_values_of_allowed_actions_are_described():
    values = torch.tensor([0.5, categorical.MASKED, -2.0, 0.0, 1.25])
    (element,) = _make().describe(values)
    assert element.text == "Q: 0 0.50, 2 -2.00, 3 0.00, 4 1.25"
