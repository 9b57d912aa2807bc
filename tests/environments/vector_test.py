"""Vector environments as time steps: a naive twin, the optimum, snapshots, refusals."""

import gymnasium
import ml_collections
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from impala_mp import errors, types
from impala_mp.environments import bad_data, factory, vector
from impala_mp.environments.catch import CatchVectorEnv

_LAST, _FIRST = types.StepType.LAST, types.StepType.FIRST


def _settings(name, **kwargs):
    return ml_collections.ConfigDict({"id": name, "kwargs": kwargs, "ignored": ()})


class Counter(gymnasium.Env):
    """Counts its steps; terminates or truncates at a length drawn at each reset."""

    observation_space = gymnasium.spaces.Box(-1000.0, 1000.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._length, self._time = int(self.np_random.integers(1, 6)), 0
        return self._observation(), {}

    def step(self, action):
        assert action in self.action_space
        self._time += 1
        over = self._time == self._length
        odd = bool(self._length % 2)
        return self._observation(), float(action), over and odd, over and not odd, {}

    def _observation(self):
        return np.array([self._time, self._length], np.float32)


gymnasium.register("Counter-v0", Counter)


class Wordy(Counter):
    """Says something, too."""

    observation_space = gymnasium.spaces.Dict(
        {"numbers": Counter.observation_space, "words": gymnasium.spaces.Text(5)}
    )

    def _observation(self):
        return {"numbers": super()._observation(), "words": "hello"}


gymnasium.register("Wordy-v0", Wordy)


class _Twin:
    """One copy, an episode at a time, as the words of the README say it."""

    def __init__(self, seed):
        self._env = Counter()
        self._restart(seed)

    def _restart(self, seed=None):
        self.observation, _ = self._env.reset(seed=seed)
        self.row = (_FIRST, 0.0, 1.0)
        self.total, self.length, self.end = 0.0, 0, None

    def step(self, action):
        self.end = None
        if self.row[0] == _LAST:
            self._restart()
            return
        self.observation, reward, terminated, truncated, _ = self._env.step(action)
        self.total, self.length = self.total + reward, self.length + 1
        over = terminated or truncated
        self.row = (
            _LAST if over else types.StepType.MID,
            reward,
            float(not terminated),
        )
        if over:
            self.end = (self.total, self.length)


def test_rows_equal_those_of_episodes_played_one_at_a_time():
    seeds, rng = [3, 4, 5], np.random.default_rng(0)
    environment = factory.make(_settings(f"{__name__}:Counter-v0"), 3)
    twins = [_Twin(seed) for seed in seeds]
    time_step, ended = environment.reset(seeds), None
    for _ in range(200):
        for i, twin in enumerate(twins):
            row = (
                time_step.step_type[i],
                time_step.reward[i],
                time_step.discount[i],
            )
            assert row == twin.row
            np.testing.assert_array_equal(time_step.observation[i], twin.observation)
            if ended is not None:
                _check_end(ended, i, twin.end)
        actions = rng.integers(3, size=3)
        time_step, ended = environment.step(actions)
        for twin, action in zip(twins, actions, strict=True):
            twin.step(action - 1)  # the space starts at -1


def _check_end(ended, i, expected):
    if expected is None:
        assert np.isnan(ended.episode_return[i])
        assert ended.episode_length[i] == 0
    else:
        assert (ended.episode_return[i], ended.episode_length[i]) == expected


def _play(environment, choose, steps):
    """All full-game returns of `steps` vector steps."""
    time_step, returns = environment.reset(range(environment.num_envs)), []
    for _ in range(steps):
        time_step, ended = environment.step(choose(time_step))
        returns += ended.episode_return[~np.isnan(ended.episode_return)].tolist()
    return returns


def _follow_the_ball(time_step):
    board = time_step.observation
    ball, paddle = board[:, :-1].max(1).argmax(1), board[:, -1].argmax(1)
    return (1 + np.sign(ball - paddle)).astype(np.int64)


def test_following_the_ball_catches_it():
    environment = factory.make(_settings("Catch", rows=7, columns=5), 4)
    returns = _play(environment, _follow_the_ball, 100)
    assert len(returns) > 20
    assert set(returns) == {1.0}


def test_standing_still_catches_some_balls():
    environment = factory.make(_settings("Catch"), 50)
    still = np.ones(50, np.int64)
    returns = _play(environment, lambda time_step: still, 300)
    assert np.mean(returns) == pytest.approx(-0.6, abs=0.1)  # 1 of 5 columns


class _Memory:
    """Remembers the cue, and answers with it."""

    def __init__(self, num_envs):
        self._cue = np.zeros(num_envs, np.int64)

    def __call__(self, time_step):
        shown = time_step.observation[:, :-1]
        self._cue[shown.any(1)] = shown.argmax(1)[shown.any(1)]
        return self._cue


def test_recall_is_solved_by_memory_alone():
    environment = factory.make(_settings("Recall", num_cues=4, delay=3), 40)
    assert set(_play(environment, _Memory(40), 60)) == {1.0}
    zeros = np.zeros(40, np.int64)
    returns = _play(environment, lambda time_step: zeros, 600)
    assert np.mean(returns) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    "name", ["Catch", "Recall", "CartPole-v1", "MinAtar/Breakout-v1"]
)
def test_a_snapshot_goes_on_as_if_nothing_had_been(name):
    settings = _settings(name)
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


def test_an_emulator_says_that_it_cannot_be_saved():
    environment = factory.make(_settings("ALE/Pong-v5"), 1)
    environment.reset([0])
    with pytest.raises(errors.BadInput, match="cannot save its state"):
        environment.state_dict()


def _breakout(training):
    settings = _settings("ALE/Breakout-v5", episodic_life=True, use_fire_reset=True)
    return factory.make(settings, 4, training=training)


def _fire(time_step):
    return np.ones(4, np.int64)


def test_a_lost_life_ends_the_episode_but_not_the_game():
    environment = _breakout(training=True)
    time_step = environment.reset(range(4))
    lost, games = 0, 0
    for _ in range(1500):
        time_step, ended = environment.step(_fire(time_step))
        last = time_step.step_type == _LAST
        assert not time_step.discount[last].any()
        over = ~np.isnan(ended.episode_return)
        assert not (over & ~last).any()  # a game's end is an episode's too
        lost, games = lost + last.sum(), games + over.sum()
    assert games >= 4
    assert 4 * games <= lost <= 6 * games + 20  # five lives a game


def test_full_games_are_played_in_evaluation():
    environment = _breakout(training=False)
    time_step, lasts, games = environment.reset(range(4)), 0, 0
    for _ in range(1000):
        time_step, ended = environment.step(_fire(time_step))
        lasts += (time_step.step_type == _LAST).sum()
        games += (~np.isnan(ended.episode_return)).sum()
    assert games == lasts > 0


def test_atari_images_are_channels_last_and_newest_last():
    environment = factory.make(_settings("ALE/Pong-v5", noop_max=0), 2)
    assert environment.spec.observation.shape == (84, 84, 4)
    assert environment.spec.frames_per_step == 4
    before = environment.reset([0, 1]).observation.copy()
    after = environment.step(np.array([2, 3]))[0].observation
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(after[..., :3], before[..., 1:])


@pytest.mark.parametrize(
    "name", ["Catch", "Recall", "ALE/Pong-v5", "MinAtar/Breakout-v1"]
)
def test_pictures(name):
    environment = factory.make(_settings(name), 1, render_mode="rgb_array")
    environment.reset([0])
    frame = environment.frame()
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    assert frame.dtype == np.uint8
    assert frame.max() > 127  # not the shade of black that 1.0 is among bytes
    environment.close()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("pygame is not installed, run", r"pip install 'impala_mp\[classic-control\]'"),
        ("no MuJoCo here", r"renders no pictures\. no MuJoCo here"),
    ],
)
def test_pictures_that_need_something_more_say_what(monkeypatch, missing, sentence):
    def render(self):
        raise gymnasium.error.DependencyNotInstalled(missing)

    monkeypatch.setattr(CatchVectorEnv, "render", render)
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    with pytest.raises(errors.BadInput, match=sentence):
        environment.frame()


class _Generous(CatchVectorEnv):
    """Gives a reward with the reset observation, as some do."""

    def step(self, actions):
        observation, _, *rest = super().step(actions)
        return observation, np.ones(self.num_envs), *rest


def test_what_is_given_at_a_reset_is_no_reward():
    environment = vector.VectorEnvironment(_Generous(2, rows=3))
    environment.reset([0, 1])
    steps = [environment.step(np.ones(2, np.int64)) for _ in range(6)]
    assert [s.reward[0] for s, _ in steps] == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    returns = [end.episode_return[0] for _, end in steps]
    assert returns[1] == returns[4] == 2.0


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


def one_env():
    return Counter()


def many_envs(num_envs, rows=5):
    return CatchVectorEnv(num_envs, rows)


def no_env():
    return 3


def test_a_factory_of_ones_own():
    made = factory.make(_settings(f"{__name__}:one_env"), 3)
    assert made.reset([1, 2, 3]).observation.shape == (3, 2)
    made = factory.make(_settings(f"{__name__}:many_envs", rows=7), 3)
    assert made.reset([1]).observation.shape == (3, 7, 5)


def test_what_is_ignored_is_not_seen():
    settings = _settings(f"{__name__}:Wordy-v0")
    settings.ignored = ("words",)
    environment = factory.make(settings, 2)
    assert set(environment.spec.observation) == {"numbers"}
    first = environment.reset([0, 1])
    step, _ = environment.step(np.ones(2, np.int64))
    assert first.observation["numbers"].shape == (2, 2)
    assert list(step.observation) == ["numbers"]


def test_what_leaves_its_space_is_counted_and_used():
    envs = _Spoiled(3)
    environment = vector.VectorEnvironment(envs)
    environment.reset([0])
    envs.spoil = lambda o, r: (o + np.float32([[[2.0]], [[0.0]], [[-3.0]]]), r)
    step, _ = environment.step(np.ones(3, np.int64))
    assert environment.num_outside == 2
    assert step.observation[0].min() == 2.0
    environment.step(np.ones(3, np.int64))
    assert environment.num_outside == 4


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


def test_a_category_that_is_none_is_bad_data():
    envs = _Categories()
    environment = vector.VectorEnvironment(envs)
    environment.reset([0])
    envs.shown = 3
    with pytest.raises(bad_data.BadData, match="'kind' go from 3 to 3"):
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
    environment = factory.make(_settings("Ordinary-v0"), 3)
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
def test_what_has_no_place_in_a_batch_is_bad_data(
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


class _SameStep(CatchVectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}


def test_another_autoreset_mode_is_refused():
    with pytest.raises(errors.BadInput, match="NEXT_STEP"):
        vector.VectorEnvironment(_SameStep(2))


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("CartPole-v9", {}, "not registered"),
        ("Cach", {}, "Did you mean 'Catch'"),
        ("nowhere:Env-v0", {}, "no module 'nowhere'"),
        (f"{__name__}:Contour-v0", {}, "and names no factory"),
        (
            f"{__name__}:no_env",
            {},
            r"returns a int\..* Return a gymnasium\.Env\.",
        ),
        (f"{__name__}:one_env", {"size": 3}, "which takes none"),
        ("ALE/Pnog-v5", {}, "Did you mean 'ALE/Pong-v5'"),
        ("Catch", {"row": 3}, "rows, columns"),
        ("Catch", {"rows": 1}, "rows >= 2"),
        ("Recall", {"num_cues": 1}, "num_cues >= 2"),
        ("Recall", {"delay": 2.5}, r"num_cues=4 and delay=2\.5\. It needs"),
        ("Catch", {"rows": "abc"}, r"rows='abc' and columns=5\. It needs whole"),
        (
            "Catch",
            {"columns": None},
            r"rows=10 and columns=None\..* Set config\.environment\.kwargs",
        ),
        ("ALE/Pong-v5", {"frame_skip": 3}, "frameskip"),
        (f"{__name__}:Wordy-v0", {}, "Text.* at 'words'"),
    ],
)
def test_refusals(name, kwargs, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        factory.make(_settings(name, **kwargs), 2)


@pytest.mark.parametrize(
    ("name", "extra"),
    [("ALE/Pong-v5", "atari"), ("MinAtar/Breakout-v1", "minatar")],
)
def test_a_missing_extra_is_named(monkeypatch, name, extra):
    def missing(module_name):
        raise ImportError(module_name)

    monkeypatch.setattr(factory.importlib, "import_module", missing)
    with pytest.raises(errors.BadInput, match=rf"impala_mp\[{extra}\]"):
        factory.make(_settings(name), 2)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (np.full((4, 6), 7, np.uint8), [7, 7, 7]),
        (np.full((4, 6, 1), 0.2), [51, 51, 51]),
        (np.full((4, 6, 4), [1, 2, 3, 4], np.uint8), [1, 2, 3]),
    ],
    ids=["grey", "one channel, from 0 to 1", "RGBA"],
)
def test_pictures_of_other_forms(monkeypatch, drawn, expected):
    monkeypatch.setattr(CatchVectorEnv, "render", lambda self: (drawn,))
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    frame = environment.frame()
    assert frame.shape == (4, 6, 3)
    assert frame.dtype == np.uint8
    assert (frame == expected).all()


def test_pictures_of_all_copies_as_one_array(monkeypatch):
    drawn = np.full((1, 4, 6, 3), True)
    monkeypatch.setattr(CatchVectorEnv, "render", lambda self: drawn)
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    assert (environment.frame() == 255).all()


def _no_render(self):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("render", "words"),
    [
        (_no_render, "let the factory take render_mode"),
        (lambda self: (None,), "let the factory take render_mode"),
        (lambda self: ("##",), r"a picture\. Return uint8"),
        (lambda self: (np.zeros(5),), r"float64 \[5\]\. It must return a picture"),
    ],
)
def test_what_is_no_picture_is_refused(monkeypatch, render, words):
    monkeypatch.setattr(CatchVectorEnv, "render", render)
    environment = vector.VectorEnvironment(CatchVectorEnv(1, render_mode="rgb_array"))
    with pytest.raises(errors.BadInput, match=words):
        environment.frame()
