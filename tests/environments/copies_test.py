"""Single copies: their data is checked before it is stacked, and stays their own."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import vector as wrappers

from impala_mp import types
from impala_mp.environments import bad_data, vector


class _Told(gymnasium.Env):
    """Returns what it is told to; keeps its actions, and changes them."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, observation_space=None, action_space=None, **told):
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space
        self.told, self.actions = told, []

    def reset(self, *, seed=None, options=None):
        return self._observation(), self.told.get("reset_info", {})

    def _observation(self):
        return self.told.get("observation", np.zeros(2, np.float32))

    def step(self, action):
        self.actions.append(action)
        for part in action.values() if isinstance(action, dict) else [action]:
            if isinstance(part, np.ndarray):
                part += 1
        return (
            self._observation(),
            self.told.get("reward", 1.0),
            self.told.get("terminated", False),
            self.told.get("truncated", False),
            self.told.get("info", {}),
        )


def _make(*copies):
    made = vector.VectorEnvironment(
        gymnasium.vector.SyncVectorEnv([lambda copy=copy: copy for copy in copies])
    )
    made.reset(list(range(len(copies))))
    return made


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (spaces.MultiBinary(3), np.ones((2, 3), np.int8)),
        (spaces.MultiDiscrete([5, 5]), np.ones((2, 2), np.int64)),
        (
            spaces.Dict(a=spaces.MultiBinary(3), b=spaces.Discrete(3)),
            {"a": np.ones((2, 3), np.int8), "b": np.ones(2, np.int64)},
        ),
        (
            spaces.Box(-np.inf, np.inf, (2,), np.float32),
            np.ones((2, 2), np.float32),
        ),
    ],
)
def test_the_environment_may_change_and_keep_its_actions(space, action):
    copies = [_Told(action_space=space) for _ in range(2)]
    made = _make(*copies)
    for _ in range(2):
        made.step(action)
    leaves = action.values() if isinstance(action, dict) else [action]
    assert all((leaf == 1).all() for leaf in leaves)
    for copy in copies:
        first, second = copy.actions
        parts = first.values() if isinstance(first, dict) else [first]
        assert all(np.max(part) <= 2 for part in parts)  # 1, changed once
        assert first is not second


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5, start=-2, dtype=np.int32),
        spaces.Discrete(5, dtype=np.uint8),
        spaces.MultiDiscrete([3, 4], dtype=np.uint8),
        spaces.MultiDiscrete([3, 4], dtype=np.int16, start=[1, 2]),
        spaces.MultiBinary(3),
        spaces.Box(-1.0, 1.0, (2,), np.float64),
    ],
)
def test_actions_have_the_dtype_of_the_space(space):
    copy = _Told(action_space=space)
    made = _make(copy)
    array = made.spec.action.array
    made.step(np.zeros((1, *array.shape), array.dtype))
    assert np.asarray(copy.actions[0]).dtype == space.dtype


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((1, 0), types.StepType.LAST),
        ((np.int64(1), False), types.StepType.LAST),
        ((np.array([True]), 0), types.StepType.LAST),
        ((np.uint8(0), 0), types.StepType.MID),
    ],
)
def test_ends_may_be_numbers_0_and_1(ends, expected):
    made = _make(_Told(terminated=ends[0], truncated=ends[1]), _Told())
    row, _ = made.step(np.zeros(2, np.int64))
    assert row.step_type.tolist() == [expected, types.StepType.MID]
    assert row.discount.tolist() == [float(expected == types.StepType.MID), 1.0]


@pytest.mark.parametrize("end", [1.0, 0.5, 2, -1, None, "yes", np.array([True, False])])
@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_other_ends_are_bad_data(name, end):
    made = _make(_Told(**{name: end}), _Told())
    with pytest.raises(bad_data.BadData, match=name):
        made.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("reward", [np.array([2.0]), np.float64(2), np.int8(2), [2.0]])
def test_a_reward_of_one_element_is_a_number(reward):
    made = _make(_Told(reward=reward), _Told())
    row, _ = made.step(np.zeros(2, np.int64))
    assert row.reward.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("reward", [1e39, -1e39, np.nan, None, "1", np.ones(2)])
def test_a_reward_that_float32_cannot_hold_is_bad_data(reward):
    made = _make(_Told(reward=reward), _Told())
    with pytest.raises(bad_data.BadData, match="reward") as caught:
        made.step(np.zeros(2, np.int64))
    assert caught.value.counter == "bad_rewards"


@pytest.mark.parametrize(
    ("space", "given", "words"),
    [
        (spaces.Box(-128, 127, (1,), np.int8), np.array([200], np.int16), "200"),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([-1]), "-1"),
        (spaces.Box(-9, 9, (1,), np.int32), np.array([2**33]), str(2**33)),
        (spaces.Box(-9, 9, (1,), np.float64), np.array([1e300]), "as float32"),
        (spaces.Box(-9, 9, (1,), np.float32), np.array([1e39]), "1e\\+39"),
        (spaces.Box(0, 1, (1,), np.int8), np.array([0.5]), "float64"),
        (spaces.Box(0, 1, (1,), np.float32), np.zeros(2, np.float32), "shape"),
        (spaces.Box(0, 1, (1,), np.float32), "much", "observations of copy 0"),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": 1}, "'a'"),
    ],
)
def test_what_the_space_cannot_hold_is_bad_data(space, given, words):
    with pytest.raises(bad_data.BadData, match=words) as caught:
        _make(_Told(observation_space=space, observation=given))
    assert caught.value.counter == "bad_observations"


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (np.float32, [1, 2]),
        (np.float32, np.array([1.0, 2.0])),
        (np.float32, np.array([1, 2], ">f4")),
        (np.dtype(">f4"), np.array([1, 2], ">f4")),
        (np.int16, np.array([1, 2], np.int64)),
        (np.float32, np.array([1, 2], np.uint8)),
    ],
)
def test_what_the_space_can_hold_is_cast(dtype, given):
    space = spaces.Box(-9, 9, (2,), dtype)
    made = _make(_Told(observation_space=space, observation=given))
    row, _ = made.step(np.zeros(1, np.int64))
    assert row.observation.tolist() == [[1, 2]]
    assert row.observation.dtype.isnative


@pytest.mark.parametrize("given", [[1, 2], (1, 2), [np.float32(1), np.array(2.0)]])
def test_lists_inside_of_dicts_and_tuples(given):
    box = spaces.Box(-9, 9, (2,), np.float32)
    space = spaces.Dict(b=spaces.Tuple([spaces.Discrete(4), box]), a=box)
    observation = {"a": given, "b": [3, given]}
    row, _ = _make(_Told(space, observation=observation)).step(np.zeros(1, np.int64))
    assert row.observation["a"].tolist() == [[1, 2]]
    assert [leaf.tolist() for leaf in row.observation["b"]] == [[3], [[1, 2]]]


@pytest.mark.parametrize(
    "infos",
    [
        ({"a": np.zeros(2)}, {"a": np.zeros(3)}),
        ({"a": 1}, {"a": "word"}),
        (None, {}),
        (3, {"b": object()}),
    ],
)
def test_infos_are_not_stacked(infos):
    made = _make(*(_Told(info=info, reset_info=info) for info in infos))
    row, _ = made.step(np.zeros(2, np.int64))
    assert row.reward.tolist() == [1.0, 1.0]


def test_copies_may_return_one_and_the_same_array():
    """Each observation is copied before the next copy writes into the array."""
    shared = np.zeros(2, np.float32)

    class Writer(_Told):
        def _observation(self):
            shared[:] = self.told["number"]
            return shared

    row, _ = _make(Writer(number=1), Writer(number=2)).step(np.zeros(2, np.int64))
    assert row.observation.tolist() == [[1, 1], [2, 2]]


class _Differences(gymnasium.vector.VectorObservationWrapper):
    """Subtracts the observations before, which it keeps as they are."""

    def reset(self, **kwargs):
        self._before = 0.0
        return super().reset(**kwargs)

    def observations(self, observations):
        before, self._before = self._before, observations
        return observations - before


class _Shaped(gymnasium.vector.VectorWrapper):
    """Adds a number of each step's infos to the rewards."""

    def step(self, actions):
        *row, infos = super().step(actions)
        row[1] = row[1] + infos["bonus"]
        return *row, {"metrics": {"bonus": infos["bonus"]}}


class _Numbered(gymnasium.Env):
    """Observes 3 times its time, in 3 rows; episodes of 3 steps."""

    observation_space = spaces.Box(0, 9, (3, 1), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self._time = 0
        return np.zeros((3, 1), np.float32), {}

    def step(self, action):
        self._time += 1
        observation = np.full((3, 1), 3 * self._time, np.float32)
        return observation, 1.0, self._time == 3, False, {"bonus": self._time}


@pytest.mark.parametrize(
    ("wrapper", "shape", "observed", "rewards", "names"),
    [
        (wrappers.FlattenObservation, (3,), [3, 6, 9], [1, 1, 1], ["bonus"]),
        (_Differences, (3, 1), [3, 3, 3], [1, 1, 1], ["bonus"]),
        (_Shaped, (3, 1), [3, 6, 9], [2, 3, 4], ["bonus"]),
        (wrappers.DictInfoToList, (3, 1), [3, 6, 9], [1, 1, 1], ["bonus"]),
    ],
)
def test_wrappers_of_a_vector_get_what_gymnasium_gives(
    wrapper, shape, observed, rewards, names
):
    inner = gymnasium.vector.SyncVectorEnv([_Numbered] * 2)
    made = vector.VectorEnvironment(wrapper(inner))
    assert made.spec.observation.shape == shape
    made.reset([1, 2])
    rows = [made.step(np.zeros(2, np.int64))[0] for _ in range(3)]
    assert [row.observation.reshape(2, 3)[1, 0] for row in rows] == observed
    assert [row.reward[1] for row in rows] == rewards
    assert made.numbers.names == names


class _Own(gymnasium.vector.VectorEnv):
    """A vector environment of one's own."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
    num_envs = 2
    single_observation_space = spaces.Box(-9, 9, (1,), np.float32)
    single_action_space = spaces.Discrete(3)

    def __init__(self, **told):
        self.told = told

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 1), np.float32), None

    def step(self, actions):
        actions += 1
        row = [np.zeros((2, 1), np.float32), np.zeros(2), np.zeros(2, bool)]
        names = ("observation", "reward", "terminated", "truncated")
        values = [*row, np.zeros(2, bool)]
        told = map(self.told.get, names, values)
        return *told, None


def test_an_own_vector_environment_may_change_its_actions():
    made = vector.VectorEnvironment(_Own())
    made.reset([0])
    action = np.ones(2, np.int64)
    made.step(action)
    assert action.tolist() == [1, 1]


@pytest.mark.parametrize(
    "told",
    [
        {"terminated": np.array([1, 0], np.uint8)},
        {"terminated": [True, False]},
        {"terminated": [1, 0], "observation": [[0.0], [0.0]]},
        {"terminated": [1, 0], "observation": [np.zeros(1, np.float32)] * 2},
        {
            "terminated": [1, 0],
            "observation": np.zeros((2, 1), ">f4"),
            "reward": [0, 0],
        },
    ],
)
def test_lists_and_numbers_of_an_own_vector_environment(told):
    made = vector.VectorEnvironment(_Own(**told))
    made.reset([0])
    row, _ = made.step(np.ones(2, np.int64))
    assert row.step_type.tolist() == [types.StepType.LAST, types.StepType.MID]
    assert row.discount.tolist() == [0.0, 1.0]
    assert row.observation.dtype == np.float32


@pytest.mark.parametrize(
    "told",
    [
        {"truncated": np.zeros(2, np.float32)},
        {"truncated": np.zeros((2, 1), bool)},
        {"truncated": np.array([None, None])},
        {"terminated": np.array([2, 0])},
        {"reward": np.zeros((2, 1))},
        {"reward": np.array([1e39, 0.0])},
        {"reward": [None, 0.0]},
    ],
)
def test_bad_data_of_an_own_vector_environment(told):
    made = vector.VectorEnvironment(_Own(**told))
    made.reset([0])
    with pytest.raises(bad_data.BadData, match=next(iter(told))[:6]):
        made.step(np.ones(2, np.int64))
