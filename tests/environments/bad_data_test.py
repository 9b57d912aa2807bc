"""Data that the space does not allow: noticed, counted, and no crash."""

import gymnasium
import numpy as np
import pytest

from impala_mp import specs
from impala_mp.environments import bad_data, factory, vector
from impala_mp.environments.catch import CatchVectorEnv
from tests.support import builders

_ARRAY = specs.array_spec((), np.float32)


class _Spoiled(CatchVectorEnv):
    """Gives `spoil(observation, reward)` instead of the two."""

    spoil = staticmethod(lambda observation, reward: (observation, reward))

    def step(self, actions):
        observation, reward, *rest = super().step(actions)
        return *self.spoil(observation, reward), *rest


@pytest.mark.parametrize(
    ("spoil", "counter", "sentence"),
    [
        (lambda o, r: (o, r * np.nan), "bad_rewards", "not finite"),
        (lambda o, r: (o, r + np.inf), "bad_rewards", "not finite"),
        (lambda o, r: (o / 0.0, r), "bad_observations", "not finite"),
        (
            lambda o, r: (o[:, 1:], r),
            "bad_observations",
            r"\[9, 5\], but the space has",
        ),
        (lambda o, r: (o.astype(np.int32), r), "bad_observations", "int32"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide")
def test_bad_data_is_noticed(spoil, counter, sentence):
    envs = _Spoiled(2)
    environment = vector.VectorEnvironment(envs)
    environment.reset([0, 1])
    environment.step(np.ones(2, np.int64))
    envs.spoil = spoil
    with pytest.raises(bad_data.BadData, match=sentence) as caught:
        environment.step(np.ones(2, np.int64))
    assert caught.value.counter == counter


def test_observations_outside_their_space_are_counted_and_used():
    envs = _Spoiled(3)
    environment = vector.VectorEnvironment(envs)
    environment.reset([0])
    envs.spoil = lambda o, r: (o + np.float32([[[2.0]], [[0.0]], [[-3.0]]]), r)
    step, _ = environment.step(np.ones(3, np.int64))
    assert environment.num_outside == 2
    assert step.observation[0].min() == 2.0
    environment.step(np.ones(3, np.int64))
    assert environment.num_outside == 4


def test_leaves_are_those_of_the_spec_in_its_order():
    spec = {"b": (_ARRAY, {"c": _ARRAY}), "a": _ARRAY}
    observation = {"a": [1, 2], "b": ({"x": 3}, {"c": (4,), "ignored": 5}), "d": 6}
    assert bad_data.leaves(spec, observation) == [[1, 2], {"x": 3}, (4,)]
    assert bad_data.leaves(_ARRAY, [1, 2]) == [[1, 2]]
    for wrong in ({"a": 1}, {"a": 1, "b": (2,)}, [1, 2], None, {"a": 1, "b": (2, "c")}):
        with pytest.raises(bad_data.BadData, match="the same keys or parts"):
            bad_data.leaves(spec, wrong)


class _Categories(CatchVectorEnv):
    """Shows what is in `shown`, which should be a Discrete(3)."""

    shown = 2

    def __init__(self):
        super().__init__(2)
        self.single_observation_space = gymnasium.spaces.Dict(
            {"kind": gymnasium.spaces.Discrete(3)}
        )

    def _board(self):
        return {"kind": np.full(2, self.shown, np.int64)}


def test_a_category_outside_its_space_is_bad_data():
    envs = _Categories()
    environment = vector.VectorEnvironment(envs)
    environment.reset([0])
    envs.shown = 3
    with pytest.raises(bad_data.BadData, match="'kind' go from 3 to 3"):
        environment.step(np.ones(2, np.int64))


@pytest.mark.parametrize("shown", [np.zeros((1, 10, 5), np.float32), np.float32(0.0)])
def test_a_row_that_is_missing_is_not_filled_with_another(shown):
    envs = CatchVectorEnv(2)
    environment = vector.VectorEnvironment(envs)
    environment.reset([0])
    envs._board = lambda: shown
    with pytest.raises(bad_data.BadData, match="observations (have|are)"):
        environment.step(np.ones(2, np.int64))


def test_a_scalar_is_no_batch_of_scalars():
    envs = _Categories()
    environment = vector.VectorEnvironment(envs)
    environment.reset([0])
    envs._board = lambda: {"kind": np.int64(1)}
    with pytest.raises(bad_data.BadData, match=r"have \[\] rows instead of 2"):
        environment.step(np.ones(2, np.int64))


class _Ordinary(gymnasium.Env):
    """What most people write: one copy. Copy 1 gives what it is told to."""

    observation_space = gymnasium.spaces.Box(0, 255, (2,), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)
    step_gives = None  # instead of (observation, reward)
    reset_gives = None  # instead of the observation

    def __init__(self):
        self.seed = 0

    def _good(self):
        return np.zeros(2, np.uint8)

    def reset(self, seed=None, options=None):
        self.seed = self.seed if seed is None else seed
        given = type(self).reset_gives if self.seed == 1 else None
        return (self._good() if given is None else given()), {}

    def step(self, action):
        given = type(self).step_gives if self.seed == 1 else None
        observation, reward = (self._good(), 1.0) if given is None else given()
        if isinstance(reward, str) and reward == "four":
            return observation, 1.0, False, {}
        return observation, reward, False, False, {}


gymnasium.register("Ordinary-v0", _Ordinary)


@pytest.fixture
def ordinary(monkeypatch):
    """Three copies, of which copy 1 can be spoiled after this."""
    environment = factory.make(builders.environment_settings("Ordinary-v0"), 3)
    environment.reset([0, 1, 2])
    environment.step(np.ones(3, np.int64))
    yield environment, lambda name, give: monkeypatch.setattr(_Ordinary, name, give)
    environment.close()


_GOOD = np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    ("observation", "reward", "counter"),
    [
        (np.zeros(3, np.uint8), 1.0, "bad_observations"),
        (np.zeros((2, 1), np.uint8), 1.0, "bad_observations"),
        (np.zeros(2, np.float32), 1.0, "bad_observations"),
        (np.full(2, -1, np.int64), 1.0, "bad_observations"),
        (None, 1.0, "bad_observations"),
        ("a board", 1.0, "bad_observations"),
        ({"board": _GOOD}, 1.0, "bad_observations"),
        (_GOOD, np.nan, "bad_rewards"),
        (_GOOD, None, "bad_rewards"),
        (_GOOD, "much", "bad_rewards"),
        (_GOOD, np.ones(2), "bad_rewards"),
    ],
)
def test_observations_and_rewards_that_do_not_fit_a_batch_are_bad_data(
    ordinary, observation, reward, counter
):
    environment, spoil = ordinary
    spoil("step_gives", lambda: (observation, reward))
    with pytest.raises(bad_data.BadData) as caught:
        environment.step(np.ones(3, np.int64))
    assert caught.value.counter == counter
    spoil("step_gives", None)
    environment.reset([3, 1, 5])
    time_step, _ = environment.step(np.ones(3, np.int64))
    assert time_step.reward.tolist() == [1.0] * 3


def test_a_reset_may_give_bad_data_too(ordinary):
    environment, spoil = ordinary
    spoil("reset_gives", lambda: np.zeros(3, np.uint8))
    with pytest.raises(bad_data.BadData, match="does not fit the space"):
        environment.reset([0, 1, 2])


def _bug(error):
    def give():
        raise error

    return give


@pytest.mark.parametrize(
    ("give", "kind"),
    [
        (_bug(ValueError("mine")), ValueError),
        (_bug(TypeError("mine")), TypeError),
        (lambda: np.stack([np.zeros(2), np.zeros(3)]), ValueError),
        (lambda: (_GOOD, "four"), ValueError),  # values, as Gym had it
        (lambda: 7, TypeError),
    ],
)
def test_a_bug_of_the_environment_is_no_bad_data(ordinary, give, kind):
    environment, spoil = ordinary
    spoil("step_gives", give)
    with pytest.raises(kind):
        environment.step(np.ones(3, np.int64))


@pytest.mark.parametrize(
    "spoil", [lambda r: r[:, None], lambda r: r[1:], lambda r: r.astype(object)]
)
def test_rewards_of_another_shape_or_dtype_are_bad_data(spoil):
    envs = _Spoiled(2)
    environment = vector.VectorEnvironment(envs)
    environment.reset([0, 1])
    envs.spoil = lambda observation, reward: (observation, spoil(reward))
    with pytest.raises(bad_data.BadData) as caught:
        environment.step(np.ones(2, np.int64))
    assert caught.value.counter == "bad_rewards"
