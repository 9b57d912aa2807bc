"""Nests of tuples, named tuples, lists and dicts."""

from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies

from impala_mp import nest


class _Pair(NamedTuple):
    left: object
    right: object


_KEYS = strategies.sampled_from("abcd")
_NESTS = strategies.recursive(
    strategies.integers(),
    lambda children: strategies.one_of(
        strategies.lists(children, max_size=3),
        strategies.lists(children, max_size=3).map(tuple),
        strategies.dictionaries(_KEYS, children, max_size=3),
        strategies.builds(_Pair, children, children),
    ),
    max_leaves=12,
)


def test_paths_and_order():
    structure = _Pair(left={"b": [1, 2], "a": 3}, right=(4, _Pair(5, ())))
    assert list(nest.flatten_with_path(structure)) == [
        ("left/a", 3),
        ("left/b/0", 1),
        ("left/b/1", 2),
        ("right/0", 4),
        ("right/1/left", 5),
    ]
    assert nest.flatten(structure) == [3, 1, 2, 4, 5]


def test_paths_begin_at_a_prefix():
    assert list(nest.flatten_with_path([1], "core")) == [("core/0", 1)]
    assert list(nest.flatten_with_path(1, "core")) == [("core", 1)]


def test_dicts_are_read_in_key_order_however_they_were_made():
    assert nest.flatten({"x": 1, "y": 2}) == nest.flatten({"y": 2, "x": 1})
    total = nest.map_structure(lambda a, b: a + b, {"x": 1, "y": 2}, {"y": 20, "x": 10})
    assert total == {"x": 11, "y": 22}


def test_types_of_nodes_survive():
    structure = _Pair(left=[1, (2,)], right={"a": _Pair(3, ())})
    mapped = nest.map_structure(str, structure)
    assert mapped == _Pair(left=["1", ("2",)], right={"a": _Pair("3", ())})
    assert type(mapped) is type(mapped.right["a"]) is _Pair
    assert type(mapped.left) is list


@pytest.mark.parametrize("leaf", [None, "text", 3, {1, 2}, range(2)])
def test_everything_else_is_a_leaf(leaf):
    assert nest.flatten(leaf) == [leaf]
    assert nest.map_structure(lambda x: (x, x), leaf) == (leaf, leaf)


@hypothesis.given(_NESTS)
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
def test_mapping_and_flattening_commute(structure):
    leaves = nest.flatten(structure)
    assert nest.map_structure(lambda x: x, structure) == structure
    assert nest.flatten(nest.map_structure(lambda x: 2 * x + 1, structure)) == [
        2 * x + 1 for x in leaves
    ]
    pairs = nest.map_structure(lambda x, y: _Leaf((x, y)), structure, structure)
    assert [leaf.value for leaf in nest.flatten(pairs)] == [(x, x) for x in leaves]
    paths = [path for path, _ in nest.flatten_with_path(structure)]
    assert len(set(paths)) == len(leaves)


class _Leaf:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(
    "other",
    [
        (1, 2),
        {"a": 1},
        {"a": 1, "c": 2},
        {"a": 1, "b": 2, "c": 3},
        {"a": 1, "b": {"x": 2}},
        {"a": 1, "b": ()},
        7,
    ],
)
def test_different_structures_are_refused(other):
    with pytest.raises(ValueError, match="structures differ"):
        nest.map_structure(lambda x, y: x, {"a": 1, "b": (2, 3)}, other)
