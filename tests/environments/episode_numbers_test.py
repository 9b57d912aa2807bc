"""The user's numbers: which of an info count, by whose name, and how many."""

import fractions

import gymnasium
import numpy as np
import pytest

from impala_mp import types
from impala_mp.environments import episode_numbers, vector


def _take(info, copies=1):
    numbers = episode_numbers.EpisodeNumbers()
    over = np.ones(copies, bool)
    final = {episode_numbers.FINAL: {i: info for i in range(copies)}}
    found = numbers.take(final, over)
    if found is None:
        return {}
    return dict(zip(numbers.names, found[0].tolist(), strict=False))


def test_finite_numbers_of_any_kind():
    info = {
        "int": 3,
        "bool": True,
        "numpy": np.float32(0.5),
        "array": np.array(7),
        "fraction": fractions.Fraction(1, 4),
        "numpy_bool": np.bool_(False),
        "text": "no",
        "none": None,
        "nan": float("nan"),
        "inf": np.inf,
        "vector": np.arange(3),
        "huge": 10**400,
        "nested": {"a": 1},
        5: 1.0,
    }
    assert _take(info) == {
        "int": 3.0,
        "bool": 1.0,
        "numpy": 0.5,
        "array": 7.0,
        "fraction": 0.25,
        "numpy_bool": 0.0,
    }


def test_success_metrics_and_names():
    info = {"is_success": True, "a/b": 1, "metrics": {"score": 2.5, "x\ny": 3}}
    assert _take(info) == {"score": 2.5, "x_y": 3.0, "success_rate": 1.0, "a_b": 1.0}


def test_too_many_numbers(capsys):
    """Names of info["metrics"] come first. The message has the first one left out."""
    info = {f"n{i:02}": i for i in range(types.NUMBERS)} | {"metrics": {"mine": 1.0}}
    found = _take(info)
    assert len(found) == types.NUMBERS
    assert found["mine"] == 1.0
    assert capsys.readouterr().out.count("n31 and later ones are not kept") == 1


def test_what_is_no_info_has_no_numbers():
    assert _take(None) == {}
    assert _take({}) == {}
    assert _take({"metrics": 3.0}) == {"metrics": 3.0}


class _Counting(gymnasium.Env):
    """Episodes of 1, 2, 3... steps; the info has their number and one of a kind."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    number = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number += 1
        self.age = 0
        return np.zeros(1, np.float32), {"number": -1}

    def step(self, action):
        self.age += 1
        over = self.age == self.number
        info = {"number": self.number, "half": self.age / 2}
        if self.number == 2:
            info["second"] = 1
        return np.zeros(1, np.float32), 1.0, over, False, info


def _sync():
    return gymnasium.vector.SyncVectorEnv([_Counting] * 2)


class _Gymnasium(gymnasium.vector.SyncVectorEnv):
    """Has Gymnasium's own infos: arrays by name, and masks."""

    def step(self, actions):
        return super().step(actions)


@pytest.mark.parametrize("kind", [_sync, lambda: _Gymnasium([_Counting] * 2)])
def test_the_last_info_of_every_episode(kind):
    environment = vector.VectorEnvironment(kind())
    environment.reset([1, 2])
    rows = []
    for _ in range(9):  # 1 + 2 + 3 steps, and their resets
        _, end = environment.step(np.zeros(2, np.int64))
        over = ~np.isnan(end.episode_return)
        if not over.any():
            assert end.numbers is None
            continue
        rows += [end.numbers[i, :3].tolist() for i in np.flatnonzero(over)]
    environment.close()
    assert environment.numbers.names == ["number", "half", "second"]
    expected = (
        [[1.0, 0.5, np.nan]] * 2 + [[2.0, 1.0, 1.0]] * 2 + [[3.0, 1.5, np.nan]] * 2
    )
    np.testing.assert_array_equal(rows, expected)
