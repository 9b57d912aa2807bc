"""An update never waits for its device: shown without a GPU, on torch's meta device.

A meta tensor has no values, so what reads one on the host raises: `item`, `bool`,
`nonzero`, a mask as an index. What reads a tensor of the CPU beside one of the device
would copy it, and wait.
"""

import numpy as np
import pytest
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from impala_mp import nest, specs
from impala_mp.algorithms import base, replay_correction
from impala_mp.config import derived
from impala_mp.environments import factory
from impala_mp.networks import agent, precision
from impala_mp.workers import learner
from tests.support import builders, variants

_BOX = {"environment.id": "Pendulum-v1"}
_CARTPOLE = {"environment.id": "CartPole-v1"}
_IMPACT = {"algorithm": "impact", "learner.passes": 2, "target.period": 2}
_POPART = variants.POPART
_KINDS = {
    "vtrace": {},
    "lstm": variants.RECURRENT,
    "gru": variants.GRU,
    "gtrxl": variants.GTRXL,
    "replay": variants.REPLAYED,
    "impact": variants.IMPACT,
    "rows": {**_CARTPOLE, **_IMPACT, "learner.minibatches": 3},
    "box": _BOX,
    "box_impact": {
        **_BOX,
        **_IMPACT,
        "impact.kl_cost": 0.2,
        "network.initial_std": 0.5,
    },
    "separate": {**_BOX, "network.critic": "separate"},
    "normalised": {**_CARTPOLE, "network.normalise_observations": True, **_POPART},
    "adam": {"optimizer.name": "adam", "optimizer.momentum": 0.9},
    "dqn": {**_CARTPOLE, "algorithm": "dqn", "target.period": 2, **_POPART},
    "iqn": variants.IQN,
    "quantiles": {"algorithm": "iqn", "iqn.fractions": "fixed", "target.period": 2},
    "tasks": {"environment.id": "CartPole-v1, CartPole-v0", **_POPART},
    "pictures": {"environment.id": "ALE/Pong-v5", "network.torso": "nature"},
}


class _Copies(TorchDispatchMode):
    """Collects operations that read a tensor of the CPU beside one of the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        leaves = [*_pytree.tree_leaves((args, kwargs)), *_pytree.tree_leaves(result)]
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            self.found.append(str(function))
        return result


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    """torch has no autocast of the meta device, not even a question about it."""
    monkeypatch.setattr(precision, "is_reduced", lambda device: False)


def _to_meta(structure):
    return nest.map_structure(lambda x: x.to("meta"), structure)


def _batch(config, environment, policy, size):
    spec = specs.trajectory_spec(
        environment,
        policy.output_spec(),
        policy.core_state_spec(),
        config.unroll_length,
        size,
        num_predecessors=derived.num_predecessors(config),
    )
    arrays = specs.example_trajectory(environment, spec)
    return _to_meta(nest.map_structure(torch.from_numpy, arrays))


@pytest.mark.parametrize("kind", _KINDS)
def test_an_update_reads_nothing_on_the_host(kind):
    config = builders.config(**_KINDS[kind])
    environment = factory.make(config.environment, 1).spec
    policy = agent.make(config, environment)
    batch = _batch(config, environment, policy, config.batch_size)
    sample = _to_meta(replay_correction.all_fresh(config) or ())
    config.learner.device = "meta"
    made = learner.Learner(config, policy)
    live = base.live_from_config(config)
    made.update(batch, live, sample or None)
    with _Copies() as copies:
        metrics = made.update(batch, live, sample or None)
    assert metrics.device.type == "meta"
    assert copies.found == []


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("epsilon", [0.25, torch.full((4,), 0.25, dtype=torch.float64)])
def test_a_step_reads_nothing_on_the_host(name, epsilon):
    if name == "Pendulum-v1":
        epsilon = 0.0  # a Box has no uniform distribution
    config = builders.config(**{"environment.id": name})
    environment = factory.make(config.environment, 1).spec
    policy = agent.make(config, environment)
    batch = _batch(config, environment, policy, 4)
    row = nest.map_structure(lambda x: x[0], batch.time_step)
    policy.network.to("meta")
    if isinstance(epsilon, torch.Tensor):
        epsilon = epsilon.to("meta")
    with torch.no_grad(), _Copies() as copies:
        policy.step(row, policy.initial_state(4, "meta"), epsilon=epsilon)
    assert copies.found == []


def test_the_test_sees_a_copy_and_a_wait():
    there, here = torch.zeros(3, device="meta"), torch.zeros(3)
    with _Copies() as copies:
        here.to("meta")
        there + 1.0
    assert copies.found == ["aten._to_copy.default"]
    with pytest.raises((RuntimeError, NotImplementedError)):
        there.sum().item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        there[there > 0]
    assert np.isfinite(here.sum().item())
