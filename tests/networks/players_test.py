"""What a player's network sees: its last action, its number, and the game's state."""

import dataclasses

import numpy as np
import pytest
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.evaluation import export
from impala_mp.networks import agent, description
from tests.support import builders

_ROWS, _COLUMNS = 9, 5


def _environment(**parts):
    own = specs.array_spec((4,), np.float32)
    return specs.EnvironmentSpec(
        {"observation": own, **parts} if parts else own,
        specs.DiscreteSpec(3),
        1,
        players=("a", "b"),
        waits=True,
        privileged="state" if "state" in parts else "",
        action_mask="allowed" if "allowed" in parts else "",
    )


_STATE = {"state": specs.array_spec((6,), np.float32)}
_ALLOWED = {"allowed": specs.array_spec((3,), np.bool_)}


def _agent(environment, **overrides):
    torch.manual_seed(0)
    return agent.make(builders.config(**overrides), environment)


def _rows(environment, seed=0):
    rng = np.random.default_rng(seed)
    shape = (_ROWS, _COLUMNS)

    def values(leaf):
        if leaf.dtype == np.bool_:
            return np.ones((*shape, *leaf.shape), bool)
        return rng.normal(size=(*shape, *leaf.shape)).astype(leaf.dtype)

    kinds = rng.integers(3, size=shape).astype(np.uint8)
    rows = types.TimeStep(
        step_type=kinds,
        reward=rng.normal(size=shape).astype(np.float32),
        discount=np.ones(shape, np.float32),
        observation=nest.map_structure(values, environment.observation),
        acts=(rng.random(shape) < 0.5) & (kinds != types.StepType.LAST),
    )
    return nest.map_structure(torch.from_numpy, rows)


@pytest.mark.parametrize("core", ["none", "lstm", "gtrxl"])
@pytest.mark.parametrize("algorithm", ["vtrace", "dqn"])
def test_steps_equal_one_unroll_while_others_act(core, algorithm):
    environment = _environment(**_ALLOWED)
    overrides = {"network.last_action": True, "network.core": core}
    policy = _agent(environment, algorithm=algorithm, **overrides)
    rows = _rows(environment)
    state = first = policy.initial_state(_COLUMNS)
    outputs = []
    for t in range(_ROWS):
        row = nest.map_structure(lambda leaf, t=t: leaf[t], rows)
        output, state = policy.step(row, state, greedy=True)
        outputs.append(output)
    stepped = nest.map_structure(lambda *each: torch.stack(each), *outputs)
    unrolled = policy.unroll(rows, stepped.action[:-1], first)
    torch.testing.assert_close(unrolled.baseline, stepped.baseline, atol=1e-6, rtol=0)
    after = policy.state_after(rows, stepped.action, first)
    for mine, theirs in zip(after, state, strict=True):
        torch.testing.assert_close(mine.float(), theirs.float(), atol=1e-6, rtol=0)


def test_an_action_that_was_ignored_is_not_seen():
    environment = _environment()
    policy = _agent(environment, **{"network.last_action": True})
    rows = _rows(environment)
    actions = torch.from_numpy(np.random.default_rng(1).integers(3, size=(8, 5)))
    ignored = ~rows.acts[:-1]
    other = torch.where(ignored, (actions + 1) % 3, actions)
    state = policy.initial_state(_COLUMNS)
    one, two = (policy.unroll(rows, each, state) for each in (actions, other))
    assert torch.equal(one.policy_logits, two.policy_logits)
    taken = torch.where(ignored, actions, (actions + 1) % 3)
    three = policy.unroll(rows, taken, state)
    changed = (one.policy_logits != three.policy_logits).any(-1)[1:]
    seen = rows.acts[:-1] & (rows.step_type[1:] != types.StepType.FIRST)
    assert torch.equal(changed, seen)


def test_the_state_of_the_game_changes_values_alone():
    environment = _environment(**_STATE, **_ALLOWED)
    policy = _agent(environment)
    rows = _rows(environment)
    observation = {**rows.observation, "state": rows.observation["state"] + 1.0}
    state, action = policy.initial_state(_COLUMNS), torch.zeros(8, 5, dtype=torch.int64)
    one = policy.unroll(rows, action, state)
    two = policy.unroll(rows._replace(observation=observation), action, state)
    assert torch.equal(one.policy_logits, two.policy_logits)
    assert (one.baseline != two.baseline).all()
    del observation["state"]
    row = nest.map_structure(
        lambda leaf: leaf[0], rows._replace(observation=observation)
    )
    logits, _ = policy.look_for_policy(row, state)
    torch.testing.assert_close(logits, one.policy_logits[0])


def test_an_export_has_no_state_of_the_game():
    environment = _environment(**_STATE, **_ALLOWED)
    policy = _agent(environment)
    module = export.GreedyPolicy(policy, environment)
    row = nest.map_structure(lambda leaf: leaf[0], _rows(environment))
    inputs = module.rows(row, ())
    assert set(inputs) == {"observation/observation", "observation/allowed"}
    assert set(module(inputs)) == {"action", "policy_logits"}


def test_action_values_may_not_depend_on_what_the_player_does_not_see():
    with pytest.raises(errors.BadInput, match="shows_state is for values"):
        _agent(_environment(**_STATE), algorithm="dqn")


def test_statistics_of_the_state_are_learned():
    environment = _environment(**_STATE)
    policy = _agent(environment, **{"network.normalise_observations": True})
    rows = _rows(environment)
    before = {k: v.clone() for k, v in policy.network.critic.state_dict().items()}
    policy.network.adapt(rows.observation, torch.ones(()))
    after = policy.network.critic.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_single_part_is_encoded_as_the_observation_itself():
    alone = _agent(_environment(), **{"network.torso": "mlp"})
    masked = _agent(_environment(**_ALLOWED), **{"network.torso": "mlp"})
    names = alone.network.state_dict().keys()
    assert names == masked.network.state_dict().keys()


def test_the_description_says_who_sees_what():
    config = builders.config()
    environment = _environment(**_STATE, **_ALLOWED)
    lines = description.sentences(config, environment)
    assert any("state: float32 [6]" in x and "for values alone" in x for x in lines)
    assert any("allowed: bool [3], the action mask" in line for line in lines)
    assert any("observation: float32 [4]" in x and "encoder mlp" in x for x in lines), (
        lines
    )
    single = dataclasses.replace(environment, players=("",), waits=False)
    assert len(description.sentences(config, single)) == len(lines)
