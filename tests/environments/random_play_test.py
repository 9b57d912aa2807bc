"""Random actions: of what is allowed, all of it and nothing else."""

import numpy as np
import pytest
from gymnasium import spaces

from impala_mp.environments import random_play

_PLAYED, _OVER = np.zeros(2, bool), np.ones(2, bool)


def _draws(space, path="may"):
    return random_play.RandomActions(space, 2, path)


def test_all_that_is_allowed_is_drawn_and_nothing_else():
    """Two elements, the second one from 5 on; the copies are allowed different ones."""
    draws = _draws(spaces.MultiDiscrete([2, 3], start=[0, 5]))
    may = np.array([[1, 0, 1, 0, 1], [1, 1, 0, 1, 0]], np.int8)
    drawn = [draws.draw({"may": may}, _PLAYED) for _ in range(200)]
    first, second = (set(map(tuple, each)) for each in np.stack(drawn, 1).tolist())
    assert first == {(0, 5), (0, 7)}
    assert second == {(0, 6), (1, 6)}


def test_without_a_mask_the_space_is_drawn_from():
    draws = _draws(spaces.Discrete(3, start=-1), path="")
    drawn = np.concatenate([draws.draw(None, _PLAYED) for _ in range(100)])
    assert set(drawn.tolist()) == {-1, 0, 1}


def test_a_mask_that_allows_nothing():
    draws = _draws(spaces.Discrete(3))
    may = np.array([[0, 1, 0], [0, 0, 0]], bool)
    with pytest.raises(
        random_play.NothingAllowed, match=r"'may' allows no action\. An"
    ):
        draws.draw({"may": may}, _PLAYED)
    draws.draw({"may": may}, _OVER)  # whose actions are ignored
    may[1, 0] = True
    assert draws.draw({"may": may}, _PLAYED).tolist() == [1, 0]


def test_an_element_that_allows_nothing_is_named():
    may = np.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    with pytest.raises(random_play.NothingAllowed, match="element 1 of an action"):
        _draws(spaces.MultiDiscrete([2, 2])).draw({"may": may}, _PLAYED)
