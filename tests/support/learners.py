"""A learner, its policy and a batch; gradients in float64."""

import copy

import torch

from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.workers import learner
from tests.support import builders

LSTM = {
    "network.core": "lstm",
    "network.last_action": True,
    "network.last_reward": True,
}
IMPACT = {
    **LSTM,
    "algorithm": "impact",
    "learner.passes": 2,
    "target.period": 2,
    "impact.kl_cost": 0.1,
    "loss.popart": True,
    "loss.popart_beta": 0.1,
    "loss.baseline": "huber",
}


def make(**overrides):
    config = builders.config(**{"environment.id": "CartPole-v1", **overrides})
    environment = factory.make(config.environment, 1).spec
    torch.manual_seed(0)
    policy = agent.make(config, environment)
    made = learner.Learner(config, policy)
    return made, policy, builders.random_batch(config, environment, policy)


def double_outputs(policy, batch):
    """A copy of the network in float64, and what it says of a batch."""
    network = copy.deepcopy(policy.network).double()
    reference = type(policy)(network, policy.distribution, policy._action)
    for parameter in network.parameters():
        parameter.grad = None
    double = batch.time_step._replace(
        reward=batch.time_step.reward.double(),
        observation=batch.time_step.observation.double(),
    )
    state = tuple(s.double() if s.is_floating_point() else s for s in batch.core_state)
    network.torso.inputs = lambda observation: observation  # not to float32
    return network, reference.unroll(double, batch.agent_output.action, state)


def pieces(batch, column):
    """First row and row after the last of each episode in a trajectory."""
    step_type = batch.time_step.step_type[:, column].tolist()
    ends = [row for row, kind in enumerate(step_type) if kind == 2]
    starts, last = [0, *(row + 1 for row in ends)], len(step_type) - 1
    pairs = zip(starts, [*ends, last], strict=True)
    return [(start, end) for start, end in pairs if start < end]


def assert_gradients(policy, expected):
    for name, parameter in policy.network.named_parameters():
        scale = expected[name].abs().max().item() + 1e-3
        error = (parameter.grad.double() - expected[name]).abs().max().item()
        assert error < 1e-4 * scale, name
