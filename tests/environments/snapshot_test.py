"""Environments that resume from a snapshot."""

import numpy as np
import pytest

from impala_mp import errors
from impala_mp.environments import factory
from tests.support import builders


@pytest.mark.parametrize(
    "name", ["Catch", "Recall", "CartPole-v1", "MinAtar/Breakout-v1"]
)
def test_a_snapshot_resumes_exactly(name):
    settings = builders.environment_settings(name)
    one, other = factory.make(settings, 3), factory.make(settings, 3)
    rng = np.random.default_rng(0)

    def actions():
        return rng.integers(one.spec.action.num_actions, size=3)

    one.reset([1, 2, 3])
    for _ in range(50):
        one.step(actions())
    other.reset([7, 8, 9])
    other.load_state_dict(one.state_dict())
    for _ in range(200):
        action = actions()
        a, b = one.step(action.copy()), other.step(action.copy())
        for x, y in zip((*a[0], *a[1]), (*b[0], *b[1]), strict=True):
            np.testing.assert_array_equal(x, y)


def test_an_emulator_refuses_a_snapshot():
    environment = factory.make(builders.environment_settings("ALE/Pong-v5"), 1)
    environment.reset([0])
    with pytest.raises(errors.BadInput, match="cannot save its state"):
        environment.state_dict()
