"""Sizes of specs, and the layout of trajectories."""

import numpy as np
import pytest

from impala_mp import nest, specs, types

_T, _E, _L = 5, 3, 4


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((), "int64"), ((0, 3), "float32"), ((2, 3), "bool"), ((4, 5), "float64")],
)
def test_nbytes_is_what_numpy_takes(shape, dtype):
    assert specs.array_spec(shape, dtype).nbytes == np.zeros(shape, dtype).nbytes


@pytest.mark.parametrize("size", [2**20, 10**18, 2**62, 2**63])
def test_nbytes_of_something_large(size):
    assert specs.array_spec((size, 2**20), np.float32).nbytes == size * 2**22


def test_specs_are_values():
    a, b = (
        specs.array_spec([np.int64(2)], "float32"),
        specs.ArraySpec((2,), np.dtype("f4")),
    )
    assert a == b
    assert hash(a) == hash(b)
    assert type(a.shape[0]) is int


@pytest.fixture
def layout():
    environment = specs.EnvironmentSpec(
        observation={
            "image": specs.array_spec((84, 84), np.uint8),
            "speed": specs.array_spec((), np.float64),
        },
        action=specs.DiscreteSpec(_L),
        frames_per_step=4,
    )
    core_state = (specs.array_spec((7,), np.float32),)
    output = specs.actor_critic_output(environment.action, _L)
    return specs.trajectory_spec(environment, output, core_state, _T, _E)


def test_shapes_and_dtypes_of_a_trajectory(layout):
    steps, transitions, word = (_T + 1, _E), (_T, _E), ((_E,), "int64")
    actual = {
        path: (spec.shape, spec.dtype.name)
        for path, spec in nest.flatten_with_path(layout)
    }
    assert actual == {
        "time_step/step_type": (steps, "uint8"),
        "time_step/reward": (steps, "float32"),
        "time_step/discount": (steps, "float32"),
        "time_step/observation/image": ((*steps, 84, 84), "uint8"),
        "time_step/observation/speed": (steps, "float64"),
        "agent_output/action": (transitions, "int64"),
        "agent_output/policy_logits": ((*transitions, _L), "float32"),
        "agent_output/baseline": (transitions, "float32"),
        "episode_end/episode_return": (transitions, "float32"),
        "episode_end/episode_length": (transitions, "int32"),
        "episode_end/numbers": ((*transitions, types.NUMBERS), "float64"),
        "parameter_version": (transitions, "int64"),
        "core_state/0": ((_E, 7), "float32"),
        "header/actor": word,
        "header/incarnation": word,
        "header/sequence": word,
        "header/committed_ns": word,
        "header/has_numbers": word,
        "header/column": word,
        "header/unroll": word,
    }


def test_the_batch_axis_is_where_types_say(layout):
    for field, axis in zip(layout, types.BATCH_AXIS, strict=True):
        assert all(spec.shape[axis] == _E for spec in nest.flatten(field))


def test_step_types_fit_their_dtype(layout):
    largest = np.iinfo(layout.time_step.step_type.dtype).max
    assert max(types.StepType) <= largest
