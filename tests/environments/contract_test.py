"""Factories and environments that break the contract get a sentence."""

import functools
import types

import gymnasium
import pytest

from impala_mp import errors
from impala_mp.environments import factory, games
from tests.environments import several_test
from tests.support import builders, counting


class Sized(counting.Counter):
    """Requires an argument."""

    def __init__(self, size, **others):
        self.size = size


class Drawn(counting.Counter):
    """Requires an argument that cannot be set."""

    def __init__(self, render_mode):
        pass


def _with_size(function):
    @functools.wraps(function)
    def made(**others):
        return function(size=3, **others)

    return made


@_with_size
def decorated(size):
    """Gets its argument from a decorator."""
    return counting.Counter()


class Spaceless(gymnasium.Env):
    """Has no spaces."""


class Hollow(counting.Counter):
    """Has None as a space."""

    action_space = None


class Shaped(counting.Counter):
    """Has a shape where a space is required."""

    observation_space = (2,)


class Stranger:
    """Is no environment of Gymnasium."""


class Broken(counting.Counter):
    """Fails in its own constructor."""

    def __init__(self):
        raise TypeError("no level")


class Unready(counting.Counter):
    """Fails in its own property."""

    @property
    def observation_space(self):
        return self.missing


class Vector(gymnasium.vector.VectorEnv):
    """Makes `count` copies; counts those that were closed."""

    num_closed = 0
    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
    single_observation_space = counting.Counter.observation_space
    single_action_space = counting.Counter.action_space

    def __init__(self, num_envs, count=0):
        self.num_envs = count or num_envs

    def close_extras(self, **kwargs):
        Vector.num_closed += self.num_envs


class VectorWithoutActions(Vector):
    """Has no space of actions."""

    single_action_space = None


class Games:
    """A VectorGame of five games for any num_envs."""

    num_games, players = 5, ("a", "b")
    observation_space = counting.Counter.observation_space
    action_space = counting.Counter.action_space

    def __init__(self, num_envs):
        pass


def four(num_envs):
    return gymnasium.vector.SyncVectorEnv([counting.Counter] * 4)


instance = counting.Counter()
game = types.ModuleType("zoo.game")
game.env = game.parallel_env = counting.Counter
by_turns = types.ModuleType("zoo.by_turns")
by_turns.env = counting.Counter

_SINGLE = (Sized, Drawn, Spaceless, Hollow, Shaped, Stranger, Broken, Unready)
for _kind in _SINGLE:
    gymnasium.register(f"{_kind.__name__}-v0", _kind)
for _kind in (Vector, VectorWithoutActions, Stranger):
    gymnasium.register(f"Many{_kind.__name__}-v0", vector_entry_point=_kind)
gymnasium.register("Given-v0", Sized, kwargs={"size": 3})


def _make(name, **kwargs):
    return factory.make(builders.environment_settings(name, **kwargs), 3)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "Sized",
            r"requires the argument size.* Set config\.environment\.kwargs\.size",
        ),
        ("Drawn", "requires the argument render_mode.* Let it have a default value"),
        ("Spaceless", r"observation_space is missing.* must be a gymnasium\.Space"),
        ("Hollow", "action_space is missing"),
        ("Shaped", r"observation_space is a builtins\.tuple"),
        ("Stranger", r"returns a Stranger\..* Return a gymnasium\.Env\."),
    ],
)
@pytest.mark.parametrize("form", [f"{__name__}:{{}}", "{}-v0"])
def test_a_single_environment(name, sentence, form):
    with pytest.raises(errors.BadInput, match=sentence):
        _make(form.format(name))


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("four", {}, "returns 4 environments for num_envs=3"),
        ("Vector", {"count": 1}, "returns 1 environments for num_envs=3"),
        ("Games", {}, "returns 5 environments for num_envs=2"),
        ("VectorWithoutActions", {}, "single_action_space is missing"),
        ("instance", {}, "is a Counter. It must be a class, or a function"),
        ("game", {}, r"is a module\..*config\.environment\.id=zoo\.game:parallel_env"),
        ("by_turns", {}, r"config\.environment\.id=zoo\.by_turns:env\."),
        ("types", {}, r"is a module\..* Set config\.environment\.id\."),
    ],
)
def test_a_factory(name, kwargs, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        _make(f"{__name__}:{name}", **kwargs)


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("ManyVector-v0", {"count": 2}, "returns 2 environments for num_envs=3"),
        ("ManyVectorWithoutActions-v0", {}, "single_action_space is missing"),
        ("ManyStranger-v0", {}, r"Return a gymnasium\.VectorEnv\."),
    ],
)
def test_a_registered_vector_environment(name, kwargs, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        _make(name, **kwargs)


def test_what_is_refused_is_closed(monkeypatch):
    monkeypatch.setattr(Vector, "num_closed", 0)
    with pytest.raises(errors.BadInput):
        _make("ManyVector-v0", count=7)
    assert Vector.num_closed == 7


@pytest.mark.parametrize("name", [f"{__name__}:Sized", "Sized-v0", "Given-v0"])
def test_a_required_argument_is_set_here_or_where_it_is_registered(name):
    made = _make(name, **({} if name == "Given-v0" else {"size": 3, "more": 1}))
    assert [each.unwrapped.size for each in made.unwrapped.envs] == [3, 3, 3]


@pytest.mark.parametrize("form", [f"{__name__}:{{}}", "{}-v0"])
@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [("Broken", TypeError, "no level"), ("Unready", AttributeError, "'missing'")],
)
def test_an_error_of_the_users_code_stays(form, name, kind, words):
    with pytest.raises(kind, match=words) as caught:
        _make(form.format(name))
    assert any(str(entry.path) == __file__ for entry in caught.traceback[1:])


@pytest.mark.parametrize(
    ("method", "found", "words"),
    [
        ("action_space", lambda player: (2,), r"\('p0'\) is a builtins\.tuple"),
        ("observation_space", None, r"observation_space\('p0'\) is missing"),
    ],
)
def test_a_game_has_the_spaces_of_its_players(method, found, words):
    crowd = several_test.Crowd()
    setattr(crowd, method, found)
    with pytest.raises(errors.BadInput, match=words):
        games.adapt("crowd", crowd)


def test_a_decorator_may_give_an_argument():
    made = factory.make(builders.environment_settings(f"{__name__}:decorated"), 2)
    assert made.num_envs == 2
    made.close()
