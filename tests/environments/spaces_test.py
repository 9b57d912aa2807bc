"""Which spaces are understood, and what is refused."""

import re
import shlex

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from impala_mp import errors, specs
from impala_mp.cli import command_line
from impala_mp.environments import players, spaces as spaces_lib
from impala_mp.networks.distributions import gaussian


def _box(dtype, shape=(2, 3)):
    return spaces.Box(0, 1, shape, dtype)


_HOLLOW = spaces.Box(0.0, 1.0, (2, 0))


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
    + ["float16", "float32", "float64"],
)
def test_boxes_that_torch_can_hold_are_understood(dtype):
    spec = spaces_lib.observation_spec(_box(np.dtype(dtype)))
    assert spec == specs.ArraySpec((2, 3), np.dtype(dtype))


@pytest.mark.parametrize("shape", [(), (4,), (84, 84, 4)])
def test_shapes_of_observations(shape):
    spec = spaces_lib.observation_spec(_box(np.uint8, shape))
    assert spec.shape == shape
    assert spec.nbytes == np.zeros(shape, np.uint8).nbytes


def test_a_dtype_that_torch_cannot_hold_is_refused():
    with pytest.raises(errors.BadInput) as raised:
        spaces_lib.observation_spec(_box(np.longdouble))
    _assert_sentence(raised, np.dtype(np.longdouble).name, "Cast it")


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.Sequence(_box(np.float32))],
    ids=lambda space: type(space).__name__,
)
def test_other_observations_are_refused(space):
    with pytest.raises(errors.BadInput) as raised:
        spaces_lib.observation_spec(space)
    _assert_sentence(raised, f"observation space {space} ", "Use numbers")
    nested = spaces.Dict({"a": spaces.Dict({"words": space, "x": _box(np.float32)})})
    with pytest.raises(errors.BadInput) as raised:
        spaces_lib.observation_spec(nested)
    _assert_sentence(
        raised, f"{space} at 'a/words' ", "Set config.environment.ignored="
    )
    assert spaces_lib.observation_spec(nested, ("a/words",)) == {
        "a": {"x": specs.array_spec((2, 3), np.float32)}
    }


_X, _WORDS = _box(np.float32), spaces.Text(5)


@pytest.mark.parametrize(
    ("space", "paths"),
    [
        (spaces.Dict(mission=_WORDS, x=_X), [("mission",)]),
        (spaces.Dict(a=_WORDS, b=_WORDS, x=_X), [("a",), ("a", "b")]),
        (spaces.Dict({"5": _WORDS, "my words": _WORDS, "x": _X}), [("5",), None]),
        (spaces.Dict(a=spaces.Tuple([_X, _WORDS]), x=_X), [("a",)]),
        (spaces.Dict(a=spaces.Dict(words=_WORDS), x=_X), [("a",)]),
        (spaces.Dict(a=spaces.Dict({}), x=_X), [("a",)]),
        (spaces.Dict(a=spaces.Tuple([_X, _HOLLOW]), x=_X), [("a",)]),
    ],
)
def test_the_printed_cure_works_in_a_shell(space, paths):
    ignored = ()
    for expected in paths:
        with pytest.raises(errors.BadInput) as raised:
            spaces_lib.observation_spec(space, ignored)
        ignored = _printed(raised)
        assert expected is None or ignored == expected
    assert set(spaces_lib.observation_spec(space, ignored)) == {"x"}
    spaces_lib.check_ignored(ignored, [space])


def _printed(raised):
    """Returns the ignored entries that the command in a message sets."""
    (command,) = re.findall(r'config\.environment\.ignored=".*?"', str(raised.value))
    config = command_line.load(["--config=experiments/catch.py", *_flags(command)])
    return config.environment.ignored


def _flags(command):
    return [f"--{each}" for each in shlex.split(command)]


def test_the_printed_cure_of_a_game_works():
    own = spaces.Dict(words=_WORDS, x=_X)
    space = spaces.Dict(observation=own, action_mask=spaces.MultiBinary(2))
    with pytest.raises(errors.BadInput) as raised:
        players.View(space, spaces.Discrete(2))
    ignored = _printed(raised)
    spaces_lib.check_ignored(ignored, [space])
    view = players.View(space, spaces.Discrete(2), ignored)
    assert set(view.interface.observation) == {"x"}


@pytest.mark.parametrize(
    "space",
    [
        _WORDS,
        spaces.Dict(words=_WORDS),
        spaces.Tuple([_WORDS, _X]),
        spaces.Dict({}),
        _HOLLOW,
    ],
    ids=lambda space: type(space).__name__,
)
def test_what_cannot_be_ignored_has_another_cure(space):
    with pytest.raises(errors.BadInput) as raised:
        spaces_lib.observation_spec(space)
    assert "ignored" not in str(raised.value)


def test_nested_and_categorical_observations():
    space = spaces.Dict(
        {
            "mode": spaces.Discrete(3, start=-1),
            "pair": spaces.Tuple([_box(np.uint8), spaces.MultiBinary(4)]),
            "gears": spaces.MultiDiscrete([2, 5], start=[1, 0]),
        }
    )
    spec = spaces_lib.observation_spec(space)
    assert spec["mode"] == specs.CategoriesSpec((), np.dtype("int64"), (3,), (-1,))
    assert spec["gears"].num_values == (2, 5)
    assert spec["gears"].example().tolist() == [1, 0]
    assert spec["pair"] == (
        specs.array_spec((2, 3), np.uint8),
        specs.array_spec((4,), np.int8),
    )
    picked = specs.pick({"mode": spec["mode"]}, {"mode": 1, "gears": 2})
    assert picked == {"mode": 1}


def test_nothing_left_to_see_is_refused():
    with pytest.raises(errors.BadInput, match="has only ignored entries"):
        spaces_lib.observation_spec(spaces.Dict({"x": _box(np.float32)}), ("x",))


@pytest.mark.parametrize("start", [0, -1, 7])
def test_discrete_actions_are_understood(start):
    spec = spaces_lib.action_spec(spaces.Discrete(5, start=start))
    assert spec == specs.DiscreteSpec(5, start)
    assert type(spec.num_actions) is int
    assert spec.array == specs.ArraySpec((), np.dtype(np.int64))


@pytest.mark.parametrize(
    "space",
    [_box(np.int32), spaces.Text(5), spaces.Sequence(spaces.Discrete(2))],
    ids=lambda space: type(space).__name__,
)
def test_other_actions_are_refused(space):
    with pytest.raises(errors.BadInput) as raised:
        spaces_lib.action_spec(space)
    _assert_sentence(raised, f"action space {space} ", "Use ")
    with pytest.raises(errors.BadInput) as raised:
        spaces_lib.action_spec(spaces.Dict({"arm": space}))
    _assert_sentence(raised, f"{space} at 'arm' ", "Use ")


def test_actions_of_every_kind():
    space = spaces.Dict(
        {
            "gears": spaces.MultiDiscrete([[2, 5]], start=[[1, 0]]),
            "arm": spaces.Tuple([spaces.MultiBinary(4), _box(np.float64, (2,))]),
        }
    )
    spec = spaces_lib.action_spec(space)
    assert spec["gears"] == specs.MultiDiscreteSpec((1, 2), (2, 5), (1, 0))
    binary, box = spec["arm"]
    assert binary.array == specs.array_spec((4,), np.int8)
    assert box.is_bounded
    assert box.array == specs.array_spec((2,), np.float32)
    open_box = spaces.Box(np.array([-np.inf, 0.0]), np.array([0.0, 1.0]))
    assert not spaces_lib.action_spec(open_box).is_bounded
    actions = specs.example_actions(spec, 3)
    assert actions["arm"][1].shape == (3, 2)


@pytest.mark.parametrize(
    ("space", "low", "high", "strict"),
    [
        (spaces.Discrete(3, start=2), 2, 4, True),
        (spaces.MultiDiscrete([2, 3]), [0, 0], [1, 2], True),
        (spaces.MultiBinary(3), 0, 1, True),
        (spaces.Box(-1.0, 2.0, (2,)), [-1, -1], [2, 2], False),
    ],
)
def test_bounds(space, low, high, strict):
    bounds = spaces_lib.observation_bounds(space)
    assert np.array_equal(bounds.low, low)
    assert np.array_equal(bounds.high, high)
    assert bounds.strict is strict


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (2,), np.uint8),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(0, 1, (2,), bool),
    ],
)
def test_a_space_as_wide_as_its_dtype_has_no_bounds(space):
    assert spaces_lib.observation_bounds(space) is None


@pytest.mark.parametrize(
    ("space", "high"),
    [
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), (255.0,)),
        (spaces.Box(0, 1, (4, 4, 3), np.uint8), (1.0,)),
        (spaces.Box(np.uint8([0, 0]), np.uint8([1, 20]), dtype=np.uint8), (1.0, 20.0)),
        (spaces.Box(-1.0, np.inf, (2,), np.float32), (np.inf,)),
        (spaces.MultiBinary(3), (1.0,)),
    ],
)
def test_the_spec_keeps_the_bounds(space, high):
    assert spaces_lib.observation_spec(space).high == high


_F32, _F64 = (float(np.finfo(dtype).max) for dtype in (np.float32, np.float64))


@pytest.mark.parametrize(
    ("low", "high", "dtype", "bounded"),
    [
        (-1.0, 1.0, np.float32, True),
        (-1e30, 1e30, np.float32, True),
        (-_F32, _F32, np.float32, False),
        (-2e38, 2e38, np.float32, False),
        (0.0, _F32, np.float32, False),
        (0.0, np.inf, np.float32, False),
        (-_F64, _F64, np.float64, False),
        (-1e300, 1e300, np.float64, False),
        (0.0, 1e300, np.float64, False),
        (-65504.0, 65504.0, np.float16, False),
        (-4e4, 4e4, np.float16, False),
    ],
)
def test_actions_as_wide_as_their_dtype_are_not_scaled(low, high, dtype, bounded):
    spec = spaces_lib.action_spec(spaces.Box(low, high, (3,), dtype))
    assert spec.is_bounded == bounded
    numbers = torch.tensor([-1.0, 0.0, 2.0])
    action = specs.to_environment(spec)(numbers)
    assert action.isfinite().all()
    if not bounded:
        expected = numbers.clamp(max(low, -_F32), min(high, _F32))
        assert torch.equal(action.float(), expected)
    policy = gaussian.Gaussian(spec)
    logits = torch.zeros(6)
    assert policy.log_prob(logits, numbers).isfinite()
    assert policy.entropy(logits).isfinite()


def _assert_sentence(raised, value, cure):
    """What was wrong, the value, and the cure, on one line."""
    message = str(raised.value)
    what, _, rest = message.rpartition(". ")
    assert value in what
    assert rest.startswith(cure)
    assert message.endswith(".")
    assert "\n" not in message


def test_a_space_of_a_real_environment():
    environment = gymnasium.make("CartPole-v1")
    assert spaces_lib.observation_spec(environment.observation_space).shape == (4,)
    assert spaces_lib.action_spec(environment.action_space).num_actions == 2


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Dict({"a/b": _box(np.float32)}), r"has the key 'a/b'\. .* a slash"),
        (spaces.Dict({1: _box(np.float32)}), r"has the key 1\. .* Use strings"),
        (spaces.Tuple([]), r"observation space Tuple\(\) is empty"),
        (spaces.Dict({"x": _HOLLOW}), r"at 'x' is empty\. .* Remove it"),
    ],
)
def test_observations_that_cannot_be_named_or_are_nothing(space, words):
    with pytest.raises(errors.BadInput, match=words):
        spaces_lib.observation_spec(space)


@pytest.mark.parametrize(
    "space",
    [spaces.Tuple([]), spaces.Dict({}), _HOLLOW],
    ids=lambda space: type(space).__name__,
)
def test_actions_that_are_nothing(space):
    with pytest.raises(errors.BadInput, match="action space .* is empty"):
        spaces_lib.action_spec(space)
    nested = spaces.Dict({"x": spaces.Discrete(2), "y": space})
    with pytest.raises(errors.BadInput, match="at 'y' is empty"):
        spaces_lib.action_spec(nested)


def test_ignored_observations_must_exist():
    """In one of the tasks at least; part of a Tuple cannot be left out."""
    one = spaces.Dict({"a": spaces.Tuple([spaces.Dict({"b": _box(np.float32)})])})
    other = spaces.Dict({"c/d": spaces.Text(3), "x": _box(np.float32)})
    spaces_lib.check_ignored(("a", "a/0/b", "c/d"), (one, other))
    for path in ("b", "a/0", "a/0/c"):
        with pytest.raises(errors.BadInput, match=f"ignored has '{path}', which is no"):
            spaces_lib.check_ignored((path,), (one, other))
    assert set(spaces_lib.observation_spec(other, ("c/d",))) == {"x"}
