"""Arrays before their encoder: division, the planes of pictures, and large means."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces as gym_spaces

from impala_mp import nest, specs
from impala_mp.environments import spaces, tasks
from impala_mp.networks import encoders, inputs, precision
from tests.support import builders


def _network(**overrides):
    fields = {f"network.{name}": value for name, value in overrides.items()}
    return builders.config(**fields).network


def _leaf(space, **overrides):
    settings = _network(**overrides)
    spec = spaces.observation_spec(space)
    return encoders.Leaf("network.torso", settings.torso, spec, settings)


@pytest.mark.parametrize("torso", ["auto", "mlp"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "uint8", "float64"])
def test_planes_of_0_and_1_are_the_same_in_every_dtype(dtype, torso):
    leaf = _leaf(gym_spaces.Box(0, 1, (10, 10, 4), np.dtype(dtype)), torso=torso)
    ones = torch.from_numpy(np.ones((2, 10, 10, 4), dtype))
    numbers = leaf.inputs(ones)
    assert numbers.dtype == torch.float32
    assert torch.equal(numbers, torch.ones(2, 10, 10, 4))


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (gym_spaces.Box(0, 255, (8, 8, 3), np.uint8), 255, 1.0),
        (gym_spaces.Box(0, 20, (3,), np.uint8), 20, 1.0),
        (gym_spaces.Box(0, 20, (3,), np.uint8), 5, 0.25),
        (gym_spaces.Box(0, 0, (3,), np.uint8), 0, 0.0),
        (gym_spaces.MultiBinary(3), 1, 1.0),
        (gym_spaces.Box(-5, 5, (3,), np.int16), 5, 5.0),
    ],
)
def test_bytes_are_divided_by_their_bound(space, value, expected):
    rows = torch.from_numpy(np.full((2, *space.shape), value, space.dtype))
    numbers = _leaf(space).inputs(rows)
    torch.testing.assert_close(numbers, torch.full(rows.shape, expected))


def test_pixels_are_divided_as_ever():
    rows = torch.arange(256, dtype=torch.uint8).view(4, 8, 8, 1)
    bounded = gym_spaces.Box(0, 255, (8, 8, 1), np.uint8)
    for spec in (spaces.observation_spec(bounded), specs.array_spec((8, 8, 1), "u1")):
        leaf = encoders.Leaf("network.torso", "auto", spec, _network())
        assert torch.equal(leaf.inputs(rows), rows.float() / 255.0)


def test_a_flag_beside_a_counter_keeps_its_weight():
    space = gym_spaces.Box(np.uint8([0, 0, 0]), np.uint8([1, 50, 255]), dtype=np.uint8)
    numbers = _leaf(space).inputs(torch.tensor([[1, 50, 255]], dtype=torch.uint8))
    assert torch.equal(numbers, torch.ones(1, 3))


def test_bounds_are_kept_in_a_dict_and_a_stack():
    planes = gym_spaces.Box(0, 1, (4, 4, 2), np.uint8)
    spec = spaces.observation_spec(gym_spaces.Dict({"board": planes}))
    made = encoders.make(_network(), spec)
    assert made.leaves[0].inputs(torch.ones(1, 4, 4, 2, dtype=torch.uint8)).max() == 1

    class Board(gymnasium.Env):
        observation_space = planes
        action_space = gym_spaces.Discrete(2)

    stacked = gymnasium.wrappers.FrameStackObservation(Board(), 3).observation_space
    rows = torch.ones((2, *stacked.shape), dtype=torch.uint8)
    assert _leaf(stacked).inputs(rows).max() == 1


def test_tasks_are_divided_by_the_bound_that_holds_for_all():
    first, second = (
        specs.EnvironmentSpec(
            spaces.observation_spec(gym_spaces.Box(0, high, (size,), np.uint8)),
            specs.DiscreteSpec(2),
            1,
        )
        for high, size in ((20, 3), (40, 3))
    )
    joint = tasks.joint_spec(("A", "B"), (first, second)).observation
    assert inputs.divisor(joint["observation"]) == 40
    same = tasks.joint_spec(("A", "B"), (first, first)).observation
    assert inputs.divisor(same["observation"]) == 20


# The planes of pictures.

_PIXELS = [
    ((64, 64, 3), (64, 64, 3), (0, 1, 2)),
    ((210, 160, 3), (210, 160, 3), (0, 1, 2)),
    ((10, 10, 4), (10, 10, 4), (0, 1, 2)),
    ((3, 3, 33), (3, 3, 33), (0, 1, 2)),
    ((5, 7, 20), (5, 7, 20), (0, 1, 2)),
    ((16, 64, 32), (16, 64, 32), (0, 1, 2)),
    ((8, 8, 111), (8, 8, 111), (0, 1, 2)),
    ((8, 8, 8), (8, 8, 8), (0, 1, 2)),
    ((64, 256, 3), (64, 256, 3), (0, 1, 2)),
    ((3, 64, 64), (64, 64, 3), (1, 2, 0)),
    ((4, 84, 84), (84, 84, 4), (1, 2, 0)),
    ((1, 64, 48), (64, 48, 1), (1, 2, 0)),
    ((2, 64, 64), (64, 64, 2), (1, 2, 0)),
    ((12, 84, 84), (84, 84, 12), (1, 2, 0)),
    ((3, 210, 160), (210, 160, 3), (1, 2, 0)),
    ((2, 6, 7), (6, 7, 2), (1, 2, 0)),
    ((111, 8, 8), (8, 8, 111), (1, 2, 0)),
    ((84, 84), (84, 84, 1), (0, 1)),
    ((4, 64, 64, 3), (64, 64, 12), (1, 2, 0, 3)),
    ((4, 3, 64, 64), (64, 64, 12), (2, 3, 0, 1)),
    ((4, 64, 64, 1), (64, 64, 4), (1, 2, 0, 3)),
    ((64, 64, 3, 4), (64, 64, 12), (0, 1, 2, 3)),
]


@pytest.mark.parametrize(("shape", "moved", "axes"), _PIXELS)
def test_planes_are_found_and_come_last(shape, moved, axes):
    space = gym_spaces.Box(0, 255, shape, np.uint8)
    leaf = _leaf(space)
    rows = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    numbers = leaf.inputs(torch.from_numpy(rows))
    assert numbers.shape == (2, *moved)
    expected = rows.transpose(0, *(axis + 1 for axis in axes)).reshape(2, *moved)
    torch.testing.assert_close(numbers, torch.from_numpy(expected).float() / 255.0)
    assert leaf(torch.from_numpy(rows)).isfinite().all()
    large = min(moved[:2]) >= 36
    assert encoders.default(spaces.observation_spec(space)) == (
        "nature" if large else "minatar"
    )


@pytest.mark.parametrize("shape", [(10, 5), (8, 8, 8, 2), (5,), (2, 3, 4, 5, 6)])
def test_what_is_no_picture_stays_as_it_is(shape):
    space = gym_spaces.Box(0, 1, shape, np.float32)
    assert encoders.default(spaces.observation_spec(space)) == "mlp"
    rows = torch.rand(2, *shape)
    assert torch.equal(_leaf(space).inputs(rows), rows)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_picture_is_encoded_the_same_in_both_layouts(normalise):
    last = gym_spaces.Box(0, 255, (40, 48, 3), np.uint8)
    first = gym_spaces.Box(0, 255, (3, 40, 48), np.uint8)
    rows = torch.randint(0, 256, (5, 40, 48, 3), dtype=torch.uint8)
    moved = rows.permute(0, 3, 1, 2).contiguous()
    made = [_leaf(space, normalise_observations=normalise) for space in (last, first)]
    made[1].load_state_dict(made[0].state_dict())
    for leaf, given in zip(made, (rows, moved), strict=True):
        leaf.adapt(given, torch.ones(()))
    torch.testing.assert_close(made[0](rows), made[1](moved))


@pytest.mark.parametrize(
    ("layout", "shape", "moved"),
    [
        ("planes_first", (8, 8, 8), (8, 8, 8)),
        ("planes_first", (20, 40, 64), (40, 64, 20)),
        ("planes_last", (3, 64, 64), (3, 64, 64)),
        ("planes_last", (4, 8, 8, 8), (8, 8, 32)),
        ("planes_first", (4, 3, 8, 8), (8, 8, 12)),
    ],
)
def test_the_layout_can_be_forced(layout, shape, moved):
    leaf = _leaf(gym_spaces.Box(0, 1, shape, np.float32), image_layout=layout)
    rows = torch.rand(2, *shape)
    assert leaf.inputs(rows).shape == (2, *moved)
    if shape == (8, 8, 8):
        assert torch.equal(leaf.inputs(rows), rows.permute(0, 2, 3, 1))


def unchanged(observation_spec, config):
    assert observation_spec.shape == (3, 64, 64)
    return torch.nn.Flatten()


def test_a_custom_torso_gets_planes_as_the_environment_gives_them():
    spec = spaces.observation_spec(gym_spaces.Box(0, 255, (3, 64, 64), np.uint8))
    made = encoders.make(_network(torso=f"{__name__}:unchanged"), spec)
    assert made(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).dtype == torch.uint8
    nested = encoders.make(
        _network(encoders={"a": f"{__name__}:unchanged"}), {"a": spec}
    )
    example = nest.map_structure(
        lambda leaf: torch.from_numpy(leaf.example()[None]), {"a": spec}
    )
    with pytest.raises(RuntimeError, match="float|Byte|dtype"):
        nested(example)  # bytes reach the joint layer: nothing cast them


# Large means.


@pytest.mark.parametrize("dtype", ["float64", "int64", "int32"])
@pytest.mark.parametrize("shape", [(4,), (6, 6, 2)])
def test_deviations_on_a_large_mean_are_exact(dtype, shape):
    rng = np.random.default_rng(0)
    space = gym_spaces.Box(-(2**30), 2**30, shape, np.dtype(dtype))
    leaf = _leaf(space, normalise_observations=True)
    base = 2**29 + 1 if dtype == "int32" else 10**8 + 1
    seen = []
    for _ in range(20):
        batch = base + rng.integers(-3, 4, (64, *shape))
        seen.append(batch)
        leaf.adapt(torch.from_numpy(batch.astype(dtype)), torch.ones(()))
    whole = np.concatenate(seen).astype(np.float64)
    rows = torch.from_numpy(seen[-1].astype(dtype))
    numbers = leaf.normaliser(leaf.inputs(rows))
    expected = (seen[-1] - whole.mean(0)) / whole.std(0)
    assert numbers.dtype == torch.float32
    np.testing.assert_allclose(numbers.numpy(), expected, atol=2e-6)


def test_a_matrix_of_16_bits_is_a_picture():
    space = gym_spaces.Box(0, 65535, (48, 64), np.uint16)
    assert encoders.default(spaces.observation_spec(space)) == "nature"
    assert _leaf(space).inputs(torch.ones(2, 48, 64)).shape == (2, 48, 64, 1)


@pytest.mark.parametrize("name", ["nature", "deep", "mlp"])
@pytest.mark.parametrize("normalise", [False, True])
def test_bytes_in_bfloat16_are_those_of_float32_rounded(name, normalise):
    """All 256 of them. Only convolutions take them so: others get float32."""
    spec = specs.array_spec((64, 64, 4), np.uint8)
    settings = builders.config().network
    settings.normalise_observations = normalise
    numbers = encoders.choose(name, spec, settings).numbers()
    observation = torch.arange(256, dtype=torch.uint8).repeat(128).view(2, 64, 64, 4)
    before = observation.clone()
    exact = numbers(observation)
    with precision.context(precision.BFLOAT16, "cpu"):
        rough = numbers(observation)
    torch.testing.assert_close(
        exact, observation.to(exact.dtype) / 255.0, rtol=0, atol=0
    )
    convolved = name != "mlp" and not normalise
    assert rough.dtype == (torch.bfloat16 if convolved else exact.dtype)
    assert torch.equal(rough, exact.to(rough.dtype))
    assert torch.equal(observation, before)
