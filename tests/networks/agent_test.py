"""One contract for actor, learner and evaluator: steps equal an unroll."""

import itertools

import numpy as np
import pytest
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.environments import factory as factory_lib
from impala_mp.networks import agent
from tests.support import builders, spaces

_VECTOR = specs.array_spec((7,), np.float32)
_IMAGE = specs.array_spec((36, 36, 3), np.uint8)


def _agent(observation=_VECTOR, **overrides):
    environment = specs.EnvironmentSpec(observation, specs.DiscreteSpec(4), 1)
    torch.manual_seed(0)
    return agent.make(builders.config(**overrides), environment)


def _rows(observation, rows=9, batch=5, seed=0):
    rng = np.random.default_rng(seed)
    if observation.dtype == np.uint8:
        values = rng.integers(256, size=(rows, batch, *observation.shape))
    else:
        values = rng.normal(size=(rows, batch, *observation.shape))
    return types.TimeStep(
        step_type=torch.from_numpy(rng.integers(3, size=(rows, batch)).astype("uint8")),
        reward=torch.from_numpy(rng.normal(size=(rows, batch)).astype("float32")),
        discount=torch.ones(rows, batch),
        observation=torch.from_numpy(values.astype(observation.dtype)),
    )


def _steps(policy, time_steps, state, **kwargs):
    outputs = []
    for row in range(time_steps.reward.shape[0]):
        one = nest.map_structure(lambda leaf, row=row: leaf[row], time_steps)
        output, state = policy.step(one, state, **kwargs)
        outputs.append(output)
    return types.AgentOutput(
        *(torch.stack(leaf) for leaf in zip(*outputs, strict=True))
    )


_NETWORKS = [
    {
        "network.core": core,
        "network.last_reward": last_reward,
        "network.last_action": last_action,
    }
    for core, last_reward, last_action in itertools.product(
        ("none", "lstm", "gru", "gtrxl"), (False, True), (False, True)
    )
]


@pytest.mark.parametrize("overrides", _NETWORKS, ids=str)
def test_steps_equal_one_unroll_across_episodes(overrides):
    policy = _agent(**overrides)
    rows = _rows(_VECTOR)
    state = tuple(leaf + 1 for leaf in policy.initial_state(5))
    stepped = _steps(policy, rows, state)
    unrolled = policy.unroll(rows, stepped.action[:-1], state)
    for mine, theirs in zip(unrolled, stepped[1:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last_action", [False, True])
@pytest.mark.parametrize("action", spaces.ACTIONS)
def test_the_output_spec_is_that_of_a_step(action, last_action):
    config = builders.config(
        **{
            "environment.id": "tests.support.spaces:Spaces-v0",
            "network.core": "lstm",
            "network.last_action": last_action,
        }
    )
    config.environment.kwargs = {"observation": "box", "action": action}
    policy = agent.make(config, factory_lib.probe(config.environment))
    state = policy.initial_state(5)
    row = nest.map_structure(lambda leaf: leaf[0], _rows(specs.array_spec((3,), "f4")))
    for made, spec in zip(
        policy.step(row, state),
        (policy.output_spec(), policy.core_state_spec()),
        strict=True,
    ):
        paths = [dict(nest.flatten_with_path(each)) for each in (made, spec)]
        assert paths[0].keys() == paths[1].keys()
        for path, leaf in paths[0].items():
            expected = paths[1][path]
            assert leaf.shape == (5, *expected.shape), path
            assert leaf.detach().numpy().dtype == expected.dtype, path


@pytest.mark.parametrize("torso", ["minatar", "shallow", "nature", "deep"])
def test_steps_equal_one_unroll_with_images(torso):
    policy = _agent(_IMAGE, **{"network.torso": torso, "network.core": "lstm"})
    rows = _rows(_IMAGE, rows=4)
    stepped = _steps(policy, rows, policy.initial_state(5))
    unrolled = policy.unroll(rows, stepped.action[:-1], policy.initial_state(5))
    torch.testing.assert_close(unrolled.baseline, stepped.baseline)


@pytest.mark.parametrize("overrides", _NETWORKS, ids=str)
def test_nothing_leaks_across_first(overrides):
    policy = _agent(**overrides)
    rows = _rows(_VECTOR)
    rows.step_type[:] = types.StepType.MID
    rows.step_type[4] = types.StepType.FIRST
    action = torch.randint(4, (8, 5))
    state = policy.initial_state(5)
    before = policy.unroll(rows, action, state)
    rows.observation[:4] += 1.0
    rows.reward[:4] += 1.0
    action[:4] = (action[:4] + 1) % 4
    after = policy.unroll(rows, action, tuple(leaf + 1 for leaf in state))
    assert torch.equal(before.policy_logits[4:], after.policy_logits[4:])
    assert torch.equal(before.baseline[4:], after.baseline[4:])
    assert not torch.equal(before.baseline[:4], after.baseline[:4])


@pytest.mark.parametrize("core", ["lstm", "gru", "gtrxl"])
def test_nan_does_not_survive_a_reset(core):
    policy, rows = _agent(**{"network.core": core}), _rows(_VECTOR)
    rows.step_type[0] = types.StepType.FIRST
    state = tuple(leaf + torch.nan for leaf in policy.initial_state(5))
    output = policy.unroll(rows, torch.zeros(8, 5, dtype=torch.int64), state)
    assert output.policy_logits.isfinite().all()


def test_the_recorded_logits_are_the_behaviour_policys():
    policy = _agent()
    rows = _rows(_VECTOR)
    plain = _steps(policy, rows, ())
    mixed = _steps(policy, rows, (), epsilon=0.3)
    expected = 0.7 * torch.softmax(plain.policy_logits, -1) + 0.3 / 4
    torch.testing.assert_close(torch.softmax(mixed.policy_logits, -1), expected)
    uniform = _steps(policy, rows, (), epsilon=1.0).policy_logits
    torch.testing.assert_close(uniform.exp(), torch.full_like(uniform, 0.25))


def test_greedy_and_seeded_actions():
    policy = _agent()
    rows = _rows(_VECTOR)
    greedy = _steps(policy, rows, (), greedy=True)
    assert torch.equal(greedy.action, greedy.policy_logits.argmax(-1))
    first, second, other = (
        _steps(policy, rows, (), generator=torch.Generator().manual_seed(seed)).action
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("torso", "shape", "parameters"),
    [
        # Feed-forward, 6 actions; design figures: 1.69M and about 1.09M.
        ("nature", (84, 84, 4), 1_687_719),
        ("deep", (84, 84, 4), 1_091_031),
    ],
)
def test_published_sizes(torso, shape, parameters):
    environment = specs.EnvironmentSpec(
        specs.array_spec(shape, np.uint8), specs.DiscreteSpec(6), 4
    )
    policy = agent.make(builders.config(**{"network.torso": torso}), environment)
    count = sum(p.numel() for p in policy.network.parameters())
    assert count == parameters


@pytest.mark.parametrize(
    ("observation", "torso", "words"),
    [
        (_VECTOR, "nature", "needs images"),
        (specs.array_spec((4, 20, 84), np.uint8), "nature", "at least 36x36"),
        (_VECTOR, "transformer", "must be auto, mlp"),
        (_VECTOR, "no_such_module:factory", "no module 'no_such_module'"),
        (_VECTOR, f"{__name__}:nothing", "has no 'nothing'"),
        (
            _VECTOR,
            f"{__name__}:unflattened",
            r"maps \[1, ...\] to \[1, 7, 1\]",
        ),
    ],
)
def test_a_torso_that_does_not_fit_is_refused(observation, torso, words):
    with pytest.raises(ValueError, match=words):
        _agent(observation, **{"network.torso": torso})


def test_the_deviations_that_a_policy_begins_with():
    action = specs.BoxSpec((3,), np.dtype("float32"), (-1.0,) * 3, (1.0,) * 3)
    environment = specs.EnvironmentSpec(_VECTOR, action, 1)
    config = builders.config(**{"network.initial_std": 0.25})
    policy = agent.make(config, environment)
    output = policy.unroll(_rows(_VECTOR), torch.zeros(9, 5, 3), ())
    means, log_stds = output.policy_logits.chunk(2, -1)
    torch.testing.assert_close(log_stds.exp(), torch.full((9, 5, 3), 0.25))
    assert means.abs().max() < 0.1
    with pytest.raises(errors.BadInput, match=r"initial_std \(0.25\) is of actions"):
        _agent(**{"network.initial_std": 0.25})


def test_a_torso_of_ones_own():
    policy = _agent(**{"network.torso": f"{__name__}:factory"})
    assert policy.network.policy.in_features == 7


def test_a_core_of_ones_own():
    policy = _agent(**{"network.core": "tests.networks.cores_test:trace"})
    assert [spec.shape for spec in policy.core_state_spec()] == [(16,)]
    assert policy.network.policy.in_features == 16


def factory(observation, config):
    return torch.nn.Flatten()


def unflattened(observation, config):
    return torch.nn.Unflatten(1, (7, 1))
