"""Connect four: its network sees every window of the board."""

import numpy as np
import pytest
import torch

from experiments import connect as experiment
from impala_mp import nest
from impala_mp.environments import factory
from impala_mp.networks import agent


@pytest.fixture
def made():
    """The agent of connect four, and boards after random moves."""
    config = experiment.get_config("four")
    config.environment.kwargs.opening = 20
    environment = factory.make(config.environment, 60)
    torch.manual_seed(0)
    rows = environment.reset(range(60))
    return agent.make(config, environment.spec), nest.map_structure(
        torch.from_numpy, rows
    )


def test_each_window_has_its_features(made):
    policy, rows = made
    torso = policy.network.torso
    board = rows.observation["observation"].float()
    windows = [
        board[:, y : y + 4, x : x + 4].permute(0, 3, 1, 2)
        for y in range(3)
        for x in range(4)
    ]
    # Row by row within a plane: the places of the layer's inputs.
    features = torch.stack([torso.window(each.flatten(1)) for each in windows], 1)
    expected = torso.board(features.flatten(1))
    torch.testing.assert_close(torso({"observation": board}), expected)
    assert expected.std() > 0.1


def test_it_acts_where_it_may(made):
    policy, rows = made
    state = policy.initial_state(60)
    with torch.inference_mode():
        output, _ = policy.step(rows, state, epsilon=0.5)
    allowed = rows.observation["allowed"].numpy()
    assert allowed[np.arange(60), output.action.numpy()].all()
