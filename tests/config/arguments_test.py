"""Arguments of the environment: equal after config.json, or refused."""

import base64
import enum
import functools
import json
import math
import operator
import pathlib

import numpy as np
import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import arguments, fields
from impala_mp.environments import factory
from tests.support import builders, counting


class Color(enum.Enum):
    RED = 1


class Outer:
    class Inner:
        pass

    def method(self):
        pass


def _config(**kwargs):
    made = builders.impala_config(**{"environment.id": f"{__name__}:Keeps"})
    for name, value in kwargs.items():
        made.environment.kwargs[name] = value
    return made


def _equal(one, other):
    """Equal, and of the same kinds at every depth."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(_equal(a, b) for a, b in pairs)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return one == other


_VALUES = [
    None,
    True,
    3,
    -0.0,
    1e300,
    10**100,
    "text",
    "a\nb\ud800",
    math.nan,
    -math.inf,
    (5, 5),
    (),
    [(1, [2, (3,)])],
    {1, 2},
    frozenset({("a", 1)}),
    {1: 0.5, 2: {3: "x"}},
    {(1, 2): [3]},
    {"a": {"b": (1,)}},
    {"$tuple": [1]},
    {"$": 1},
    [{"z": 1, "a": 2, "d.e": 3}],
    b"\0\xff",
    bytearray(b"x"),
    1 + 2j,
    complex(math.inf, 0),
    range(1, 9, 2),
    slice(None, 3),
    pathlib.Path("/a/b"),
    np.array([1.0, 2.0]),
    np.arange(6, dtype=">i2").reshape(2, 3),
    np.zeros((0, 3), np.uint8),
    np.array(2.5),
    np.array([(1, 2.0)], dtype=[("x", "i4"), ("y", "f8")]),
    np.float32(0.1),
    np.float64(0.1),
    np.int64(3),
    np.bool_(True),
    np.str_("s"),
    np.dtype("float16"),
    np.float32,
    np.uint8,
    int,
    dict,
    Color.RED,
    Outer.Inner,
    counting.Counter,
    operator.add,
    math.sin,
    len,
    [np.array([1]), (Color.RED, {np.int64(1): np.uint8(2)})],
]


@pytest.mark.parametrize("value", _VALUES, ids=lambda value: repr(value)[:40])
def test_the_constructor_receives_equal_arguments_after_the_file(value):
    config = _config(value=value)
    text = config_lib.to_json(config)
    json.loads(text, parse_constant=pytest.fail)  # also for readers of strict JSON
    again = config_lib.from_json(text)
    assert fields.differences(config, again) == {}
    assert config_lib.to_json(again) == text
    for settings in (config.environment, again.environment):
        assert _equal(arguments.plain(settings.kwargs), {"value": value})


def test_changed_arguments_are_named_with_their_values():
    old, new = _config(size=(5, 5)), _config(size=[5, 5])
    changed = {"environment.kwargs.size": ((5, 5), [5, 5])}
    assert fields.differences(old, new) == changed
    one, other = (_config(weights=np.array([1.0, x])) for x in (2.0, 3.0))
    assert [*fields.differences(one, other)] == ["environment.kwargs.weights"]


def test_a_file_of_an_earlier_version_keeps_its_arguments():
    text = config_lib.to_json(_config())
    stored = json.loads(text)
    stored["environment"]["kwargs"] = {"size": [5, 5], "prices": {"1": 0.5}}
    read = config_lib.from_json(json.dumps(stored))
    assert arguments.plain(read.environment.kwargs) == {
        "size": [5, 5],
        "prices": {"1": 0.5},
    }


def _endless():
    value = []
    value.append(value)
    return value


def _local():
    pass


class _Number(int):
    pass


def _own_class():
    class Hidden:
        pass

    return Hidden


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda: 0, r"kwargs\.value is .*<lambda>, which cannot be imported by that"),
        (_own_class(), "Hidden, which cannot be imported"),
        (Outer().method, "cannot be imported"),
        (object(), r"kwargs\.value is a object that config\.json cannot hold"),
        ([(object(),)], r"kwargs\.value\[0\]\[0\] is a object"),
        (functools.partial(len), "is a partial that"),
        (_Number(3), "is a _Number that"),
        (np.array([object()]), "is a ndarray that"),
        (10**5000, "is a int that"),
        (_endless(), "contain themselves"),
        ({1: 2, "a": 3}, r"kwargs\.value has keys of different kinds"),
        (math, "is a module that"),
        (functools.reduce(lambda x, _: [x], range(30), 1), "nested too deeply"),
        (np.zeros(2**20), "take 10.7 MiB .* At most 8"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, str) else "",
)
def test_others_are_refused_at_the_start(value, sentence):
    settings = _config(value=value)
    for refuses in (
        lambda: config_lib.to_json(settings),
        lambda: factory.make(settings.environment, 1),
        lambda: fields.flatten(settings),
    ):
        with pytest.raises(errors.BadInput, match=sentence):
            refuses()


class Keeps(counting.Counter):
    def __init__(self, value=None):
        super().__init__()
        self.value = value


def test_the_environment_gets_plain_dicts_and_a_copy_for_itself():
    value = {"levels": [{"a": 1}], 2: {"b": (3,)}}
    settings = _config(value={"inner": value["levels"]}).environment
    made = factory.make(settings, 2).unwrapped.envs
    assert type(made[0].unwrapped.value) is dict
    made[0].unwrapped.value["inner"].append(3)
    assert made[1].unwrapped.value == {"inner": [{"a": 1}]}
    assert settings.kwargs.value.to_dict() == {"inner": [{"a": 1}]}


def test_reading_a_config_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "touched.py").write_text("open(__file__ + '.imported', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    stored = json.loads(config_lib.to_json(_config()))
    stored["environment"]["kwargs"] = {"value": [{"$object": "touched:open"}]}
    read = config_lib.from_json(json.dumps(stored))
    assert read.environment.kwargs.value == [arguments.Reference("touched:open")]
    assert fields.differences(read, read) == {}
    assert not list(tmp_path.glob("*.imported"))
    with pytest.raises(errors.BadInput, match="has no 'nothing'"):
        arguments.plain({"value": arguments.Reference("math:nothing")})
    with pytest.raises(errors.BadInput, match="no module 'nowhere'"):
        arguments.plain({"value": arguments.Reference("nowhere:x")})


def test_a_deeply_nested_file_is_a_sentence():
    deep = functools.reduce(lambda x, _: {"$tuple": [x]}, range(5000), 1)
    with pytest.raises(errors.BadInput, match="nested too deeply"):
        arguments.decode(deep)


@pytest.mark.parametrize(
    "damaged",
    [
        {"$other": 1},
        {"$array": "AAAA"},
        {"$array": 3},
        {"$array": base64.b64encode(b"PK\3\4").decode()},
        {"$array": base64.b64encode(b"\x93NUMPY\1\0\5\0{'a'(").decode()},
        {"$scalar": "k05VTVBZ"},
        {"$tuple": [{"$array": ""}]},
        {"$type": "os.system"},
        {"$type": "numpy.load"},
        {"$object": 3},
        {"$dict": [1]},
        {"$set": [[1]]},
        {"$range": 3},
    ],
)
def test_damaged_arguments_are_a_sentence(damaged):
    with pytest.raises(errors.BadInput, match="damaged or of another"):
        arguments.decode({"value": damaged})
