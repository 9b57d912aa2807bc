"""The MiniGrid experiment: what its agents are shown, and have to remember."""

import numpy as np
import pytest

from experiments import minigrid as experiment
from impala_mp import errors

pytest.importorskip("minigrid")

_KEY, _BALL = 5, 6  # MiniGrid's numbers of the objects


def test_planes_are_what_minigrid_shows():
    env = experiment.make_memory()
    for seed in range(20):
        shown, _ = env.reset(seed=seed)
        for action in (0, 2, 1, 2, 2):
            assert env.observation_space.contains(shown)
            planes = shown["image"].reshape(3, 3, 3, 11)
            assert (planes.sum(-1) == 1).all()
            own = env.unwrapped.gen_obs()
            np.testing.assert_array_equal(planes.argmax(-1), own["image"])
            assert shown["direction"] == own["direction"]
            shown, *_ = env.step(action)


@pytest.mark.parametrize("size", [1, 4])
def test_a_view_that_minigrid_does_not_have(size):
    with pytest.raises(
        errors.BadInput, match=rf"agent_view_size \({size}\) must be odd"
    ):
        experiment.make_memory(agent_view_size=size)


def _objects(view_size):
    """Most of the three objects that any one view of any game shows."""
    env = experiment.make_memory(agent_view_size=view_size).unwrapped
    most = 0
    for seed in range(10):
        env.reset(seed=seed)
        for x, y, direction in np.ndindex(env.width, env.height, 4):
            cell = env.grid.get(x, y)
            if cell is None:
                env.agent_pos, env.agent_dir = (x, y), direction
                kinds = env.gen_obs()["image"][..., 0]
                most = max(most, int(np.isin(kinds, (_KEY, _BALL)).sum()))
    return most


def test_only_a_view_of_three_cells_asks_for_memory():
    """Who has the first object and one of the others in view need not remember."""
    assert _objects(3) == 1
    assert _objects(7) == 3
