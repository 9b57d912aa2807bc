"""Quantile heads against sums in float64, and the agent that acts by their mean."""

import math

import numpy as np
import pytest
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.networks import agent, popart, q_network, quantile_network
from tests.support import builders

_VECTOR = specs.array_spec((7,), np.float32)
_ACTIONS, _ROWS, _BATCH = 5, 9, 4
_IQN = {
    "algorithm": "iqn",
    "iqn.quantiles": 3,
    "iqn.acting_quantiles": 6,
    "iqn.embedding": 10,
}
_FIXED = {"algorithm": "iqn", "iqn.quantiles": 3, "iqn.fractions": "fixed"}
_KINDS = {
    "drawn": _IQN,
    "fixed": _FIXED,
    "drawn popart": {**_IQN, "loss.popart": True},
    "fixed popart": {**_FIXED, "loss.popart": True},
}


def _make(observation=_VECTOR, action=None, **overrides):
    action = action or specs.DiscreteSpec(_ACTIONS)
    environment = specs.EnvironmentSpec(observation, action, 1)
    torch.manual_seed(0)
    return agent.make(builders.config(**overrides), environment)


def _rows(seed=0):
    rng = np.random.default_rng(seed)
    shape = _ROWS, _BATCH
    observation = rng.normal(size=(*shape, 7)).astype("float32")
    return types.TimeStep(
        step_type=torch.from_numpy(rng.integers(3, size=shape).astype("uint8")),
        reward=torch.from_numpy(rng.normal(size=shape).astype("float32")),
        discount=torch.ones(shape),
        observation=torch.from_numpy(observation),
    )


def _scaled(policy):
    """Gives PopArt's statistics values that are not those of the start."""
    head = popart.head(policy.network)
    if head is not None:
        head.mean.copy_(torch.arange(1.0, 1.0 + len(head.mean)) * 3.0)
        head.variance.copy_(torch.arange(1.0, 1.0 + len(head.mean)) * 4.0)
    return policy


def _naive_quantile(head, features, fraction, action):
    """One quantile of one action by the paper's equation, in float64."""
    weight, bias = (x.detach().double() for x in head.embedding.parameters())
    cosines = [math.cos(math.pi * i * fraction) for i in range(weight.shape[1])]
    phi = (weight @ torch.tensor(cosines).double() + bias).clamp(min=0.0)
    row = head.output.weight.detach().double()[action]
    value = row @ (features.double() * phi) + head.output.bias[action].item()
    if isinstance(head.output, popart.PopArtHead):
        value = value * head.output.scale.item() + head.output.mean.item()
    return value.item()


@pytest.mark.parametrize("kind", ["drawn", "drawn popart"])
def test_quantiles_are_those_of_the_equation(kind):
    head = _scaled(_make(**_KINDS[kind])).network.baseline
    features = torch.randn(3, 2, 16)
    with torch.no_grad():
        values, quantiles, fractions = head.learned(features, None)
    assert quantiles.shape == (3, 2, 3, _ACTIONS)
    for row, column, i, action in np.ndindex(*quantiles.shape):
        fraction = fractions[row, column, i].item()
        expected = _naive_quantile(head, features[row, column], fraction, action)
        found = quantiles[row, column, i, action].item()
        assert found == pytest.approx(expected, abs=1e-4)
    for row, column, action in np.ndindex(*values.shape):
        seen = features[row, column]
        expected = [
            _naive_quantile(head, seen, (k + 0.5) / 6, action) for k in range(6)
        ]
        found = values[row, column, action].item()
        assert found == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize("kind", ["fixed", "fixed popart"])
def test_fixed_quantiles_are_at_midpoints_and_the_value_is_their_mean(kind):
    head = _scaled(_make(**_KINDS[kind])).network.baseline
    with torch.no_grad():
        features = torch.randn(2, 4, 16)
        values, quantiles, fractions = head.learned(features, None)
        assert torch.equal(head(features), values)
    assert quantiles.shape == (2, 4, 3, _ACTIONS)
    torch.testing.assert_close(quantiles.mean(2), values)
    expected = torch.tensor([1 / 6, 1 / 2, 5 / 6]).expand(2, 4, 3)
    torch.testing.assert_close(fractions, expected)


@pytest.mark.parametrize("kind", ["drawn popart", "fixed popart"])
def test_each_task_has_its_own_scale_and_outputs(kind):
    """Two tasks in one head are two heads, each of one task."""
    config = builders.config(**_KINDS[kind])
    make = quantile_network._HEADS[config.iqn.fractions]
    both = make(16, _ACTIONS, config.iqn, 2, True)
    alone = [make(16, _ACTIONS, config.iqn, 1, True) for _ in range(2)]
    with torch.no_grad():
        both.output.mean.copy_(torch.tensor([3.0, -7.0]))
        both.output.variance.copy_(torch.tensor([4.0, 9.0]))
        for task, one in enumerate(alone):
            state = {k: v.clone() for k, v in both.state_dict().items()}
            for name in ("weight", "bias", "mean", "variance"):
                name = f"output.{name}"
                state[name] = state[name].chunk(2)[task]
            one.load_state_dict(state)
        task = torch.tensor([[0, 1, 1], [1, 0, 1]])
        features = torch.randn(2, 3, 16)
        torch.manual_seed(1)
        found = both.learned(features, task)
        for number, one in enumerate(alone):
            torch.manual_seed(1)
            expected = one.learned(features, None)
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a[task == number], b[task == number])


def test_popart_finds_its_head():
    for kind, overrides in _KINDS.items():
        found = popart.head(_make(**overrides).network)
        assert (found is not None) == kind.endswith("popart")


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("core", ["none", "lstm", "gru", "gtrxl"])
def test_steps_equal_an_unroll(core, kind):
    """Values do not depend on the fractions that the learner draws."""
    last = {"network.last_action": True, "network.last_reward": True}
    norm = {"network.core": core, "network.layer_norm": True}
    policy = _scaled(_make(**_KINDS[kind], **last, **norm))
    rows = _rows()
    state = first = policy.initial_state(_BATCH)
    outputs = []
    with torch.no_grad():
        for row in range(_ROWS):
            one = nest.map_structure(lambda leaf, row=row: leaf[row], rows)
            output, state = policy.step(one, state, epsilon=0.2)
            outputs.append(output)
        recorded = types.AgentOutput(
            *(torch.stack(leaf) for leaf in zip(*outputs, strict=True))
        )
        unrolled = policy.unroll(rows, recorded.action[:-1], first)
    torch.testing.assert_close(unrolled.baseline, recorded.baseline)
    greedy = policy.distribution.mix(q_network.greedy_logits(unrolled.q_values), 0.2)
    torch.testing.assert_close(greedy, recorded.policy_logits)
    recorded = recorded._replace(baseline=recorded.baseline[:-1])
    assert policy.differences(unrolled, recorded, 0.2, 1.0).max() < 1e-5


@pytest.mark.parametrize("fractions", ["drawn", "fixed"])
def test_a_forbidden_action_has_no_value_but_finite_quantiles(fractions):
    mask = specs.array_spec((_ACTIONS,), np.bool_)
    observation = {"allowed": mask, "seen": _VECTOR}
    overrides = {"algorithm": "iqn", "iqn.fractions": fractions}
    policy = _make(observation, **overrides, **{"agent.action_mask_key": "allowed"})
    rows = _rows()
    allowed = torch.rand(_ROWS, _BATCH, _ACTIONS) < 0.5
    allowed[..., 3] = True
    seen = {"allowed": allowed, "seen": rows.observation}
    rows = rows._replace(observation=seen)
    with torch.no_grad():
        output = policy.unroll(rows, None, policy.initial_state(_BATCH))
    assert torch.equal(output.q_values > -1e8, allowed)
    assert torch.equal(output.baseline, output.q_values.amax(-1))
    assert allowed.gather(-1, output.q_values.argmax(-1, keepdim=True)).all()
    assert output.quantiles.abs().max() < 1e3


def test_fractions_of_columns_are_drawn_in_their_order():
    """So that micro-batches draw the numbers of the whole batch."""
    policy, rows = _make(**_IQN), _rows()
    state = policy.initial_state(_BATCH)
    torch.manual_seed(3)
    whole = policy.unroll(rows, None, state)
    torch.manual_seed(3)
    for start in (0, 2):
        columns = slice(start, start + 2)
        part = nest.map_structure(lambda leaf, columns=columns: leaf[:, columns], rows)
        found = policy.unroll(part, None, policy.initial_state(2))
        assert torch.equal(found.fractions, whole.fractions[:, columns])
        torch.testing.assert_close(found.quantiles, whole.quantiles[:, columns])


def test_other_actions_are_refused():
    box = specs.BoxSpec((1,), np.dtype(np.float32), (-1.0,), (1.0,))
    with pytest.raises(errors.BadInput, match="algorithm=iqn needs one Discrete space"):
        _make(action=box, **_IQN)
