"""A network in bfloat16: its outputs and its state are float32, and close."""

import pytest
import torch

from impala_mp import nest
from impala_mp.environments import factory
from impala_mp.networks import agent, precision
from tests.support import builders

_KINDS = {
    "mlp": {},
    "lstm": {"network.core": "lstm", "network.last_action": True},
    "gru": {"network.core": "gru"},
    "gtrxl": {"network.core": "gtrxl", "network.gtrxl.window": 3},
    "dqn": {"algorithm": "dqn", "network.dueling": True},
    "iqn": {"algorithm": "iqn"},
    "popart": {"loss.popart": True},
}
_each = pytest.mark.parametrize("overrides", _KINDS.values(), ids=_KINDS)


def _acted(overrides, name):
    """(outputs of the network, output of a step, state) of an agent."""
    config = builders.config(**overrides)
    environment = factory.make(config.environment, 1).spec
    torch.manual_seed(0)
    policy = agent.make(config, environment)
    policy.precision = name
    batch = builders.random_batch(config, environment, policy, 0)
    row = nest.map_structure(lambda leaf: leaf[0], batch.time_step)
    state = policy.initial_state(len(row.reward))
    with torch.no_grad():
        for _ in range(3):
            outputs, _, _ = policy.look(row, state)
            generator = torch.Generator().manual_seed(0)
            output, state = policy.step(row, state, epsilon=0.1, generator=generator)
    return outputs, output, state


@_each
def test_what_is_recorded_is_float32(overrides):
    outputs, output, state = _acted(overrides, precision.BFLOAT16)
    tensors = [outputs, output.baseline, *state]
    tensors += [each for each in output if each.is_floating_point()]
    assert {each.dtype for each in tensors if each.is_floating_point()} == {
        torch.float32
    }


@_each
def test_the_heads_have_more_digits_than_bfloat16(overrides):
    """A head in bfloat16 would return numbers that are equal to their rounding."""
    outputs, _, _ = _acted(overrides, precision.BFLOAT16)
    assert (outputs != outputs.bfloat16().float()).float().mean() > 0.5


@_each
def test_bfloat16_changes_the_outputs_by_its_rounding(overrides):
    precise, _, _ = _acted(overrides, precision.FLOAT32)
    rough, _, _ = _acted(overrides, precision.BFLOAT16)
    assert not torch.equal(rough, precise)
    torch.testing.assert_close(rough, precise, rtol=0.05, atol=0.05)


def test_no_state_stays_no_state():
    with precision.context(precision.BFLOAT16, "cpu"):
        assert precision.in_float32(lambda *leaves: leaves) == ()
