"""A separate critic: values and policy share no parameter, and nothing else changes."""

import numpy as np
import pytest
import torch

from impala_mp import nest, specs, types
from impala_mp.algorithms import base
from tests.networks import agent_test
from tests.support import learners

_SEPARATE = {"network.critic": "separate"}
_KINDS = {
    "vector": specs.array_spec((7,), np.float32),
    "dict": {
        "a": specs.array_spec((3,), np.float32),
        "b": specs.array_spec((36, 36, 3), np.uint8),
    },
}


def _rows(observation, rows=3, batch=5):
    rng = np.random.default_rng(0)

    def drawn(spec):
        values = rng.integers(100, size=(rows, batch, *spec.shape))
        return torch.from_numpy(values.astype(spec.dtype))

    ones = torch.ones(rows, batch)
    observation = nest.map_structure(drawn, observation)
    return types.TimeStep(ones.byte(), ones, ones, observation)


@pytest.mark.parametrize("kind", _KINDS)
def test_values_and_policy_share_no_parameter(kind):
    policy = agent_test._agent(_KINDS[kind], **_SEPARATE)
    network = policy.network
    action = torch.zeros(2, 5, dtype=torch.int64)
    reached = {}
    for name in ("policy_logits", "baseline"):
        output = policy.unroll(_rows(_KINDS[kind]), action, ())
        network.zero_grad()
        getattr(output, name).square().sum().backward()
        reached[name] = {
            path
            for path, parameter in network.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0
        }
    assert not reached["policy_logits"] & reached["baseline"]
    everything = {path for path, _ in network.named_parameters()}
    assert reached["policy_logits"] | reached["baseline"] == everything
    assert any(path.startswith("value_torso.") for path in reached["baseline"])


@pytest.mark.parametrize("kind", _KINDS)
def test_an_actor_computes_what_the_learner_does(kind):
    policy = agent_test._agent(_KINDS[kind], **_SEPARATE)
    time_step = _rows(_KINDS[kind])
    output = policy.unroll(time_step, torch.zeros(2, 5, dtype=torch.int64), ())
    for row in range(3):
        one = nest.map_structure(lambda leaf, row=row: leaf[row], time_step)
        logits, baseline, _ = policy.look(one, ())
        torch.testing.assert_close(logits, output.policy_logits[row])
        torch.testing.assert_close(baseline, output.baseline[row])
        torch.testing.assert_close(policy.look_for_policy(one, ())[0], logits)


def test_both_encoders_normalise_alike():
    normalise = {"network.normalise_observations": True}
    policy = agent_test._agent(_KINDS["vector"], **_SEPARATE, **normalise)
    rows = _rows(_KINDS["vector"])
    policy.network.adapt(rows.observation, torch.ones(()))
    mine, its = policy.network.torso.normaliser, policy.network.value_torso.normaliser
    assert mine.count == its.count == 15
    assert torch.equal(mine.mean, its.mean)
    assert mine.mean.abs().sum() > 0


def test_a_shared_critic_has_the_parameters_it_had():
    names = [
        name
        for name, _ in agent_test._agent(_KINDS["vector"]).network.named_parameters()
    ]
    assert not [name for name in names if name.startswith("value_torso")]


def test_the_gradient_of_values_leaves_the_policys_encoder_alone():
    """With all of the policy's terms at 0, only the critic learns."""
    silent = {"loss.entropy_cost": 0.0, "vtrace.clip_pg_rho_threshold": 0.0}
    made, policy, batch = learners.make(**_SEPARATE, **silent)
    before = {k: v.clone() for k, v in policy.network.state_dict().items()}
    made.update(batch, base.live_from_config(made._config))
    after = policy.network.state_dict()
    moved = {
        name
        for name, _ in policy.network.named_parameters()
        if not torch.equal(before[name], after[name])
    }
    assert moved
    assert all(name.startswith(("value_torso.", "baseline.")) for name in moved)


def test_values_see_the_last_reward_and_action():
    fields = {"network.last_reward": True, "network.last_action": True}
    policy = agent_test._agent(_KINDS["vector"], **_SEPARATE, **fields)
    rows = _rows(_KINDS["vector"])
    state = policy.initial_state(5)
    action = torch.zeros(2, 5, dtype=torch.int64)
    plain = policy.unroll(rows, action, state).baseline
    rewarded = policy.unroll(rows._replace(reward=-rows.reward), action, state).baseline
    acted = policy.unroll(rows, action + 1, state).baseline
    assert (plain != rewarded).all()
    assert (plain[0] == acted[0]).all()
    assert (plain[1:] != acted[1:]).all()


def test_its_encoder_computes_at_the_learners_precision():
    made, policy, batch = learners.make(
        **_SEPARATE, **{"learner.precision": "bfloat16"}
    )
    seen = {}
    for name in ("torso", "value_torso"):
        module = getattr(policy.network, name)
        module.register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output.dtype})
        )
    output = made.unroll(batch)
    assert seen == {"torso": torch.bfloat16, "value_torso": torch.bfloat16}
    assert output.baseline.dtype == torch.float32
