"""The tree of seeds: every node its own, and the same in every version."""

import itertools
import random

import numpy as np
import pytest
import torch

from impala_mp import seeding

_ROLES = ("learner", "actor", "evaluator", "inference", "replay", "main")


def _nodes():
    """(name, node) of a good many processes."""
    for key in itertools.product((0, 1), _ROLES, range(20), range(5)):
        yield key, seeding.sequence(*key)


def test_all_nodes_differ():
    nodes = dict(_nodes())
    states = {tuple(node.generate_state(4)) for node in nodes.values()}
    assert len(states) == len(nodes)
    assert len({seeding.torch_seed(node) for node in nodes.values()}) == len(nodes)


def test_all_environments_differ():
    # 31 bits: a chance of about one in a thousand, were it not for the fixed seeds.
    seeds = [
        seed
        for (run, role, index, incarnation), node in _nodes()
        if run == 0 and role in ("actor", "evaluator")
        for seed in seeding.environment_seeds(node, 10)
    ]
    assert len(set(seeds)) == len(seeds) == 2_000


def _draws():
    """The next numbers of all global generators."""
    return random.random(), np.random.random(), torch.rand(()).item()


@pytest.fixture
def _state():
    state = seeding.global_state()
    yield
    seeding.set_global_state(state)


@pytest.mark.usefixtures("_state")
def test_all_global_generators_differ_and_repeat():
    def of(key):
        seeding.seed_globals(seeding.sequence(*key))
        return _draws()

    keys = [key for key, _ in _nodes()][::3]
    draws = [of(key) for key in keys]
    assert len({number for each in draws for number in each}) >= 3 * len(keys) - 2
    assert [of(key) for key in keys] == draws


@pytest.mark.usefixtures("_state")
def test_the_state_of_the_global_generators_is_restored():
    seeding.seed_globals(seeding.sequence(0, "actor"))
    _draws(), random.gauss(0, 1), np.random.normal()
    state = seeding.global_state()
    first = _draws()
    seeding.seed_globals(seeding.sequence(1, "actor"))
    seeding.set_global_state(state)
    assert _draws() == first


@pytest.mark.usefixtures("_state")
def test_torch_may_be_left_as_it_is():
    torch.manual_seed(3)
    first = torch.rand(())
    torch.manual_seed(3)
    seeding.seed_globals(seeding.sequence(0, "main"), with_torch=False)
    assert torch.rand(()) == first


def test_golden_values():
    """A change of these numbers changes every run that anyone may want to repeat."""
    assert _golden(0, "learner") == (1891697486985583246, [1763755186, 984928283])
    assert _golden(0, "actor") == (808926768163661873, [878454286, 52913478])
    assert _golden(1, "actor", 3, 2) == (7349293320613609836, [896604673, 1227106733])
    assert _golden(7, "evaluator") == (8016278664416516433, [298174714, 51029760])
    assert _golden(0, "inference") == (639922378781192059, [1018024452, 1170871938])


def _golden(*key):
    node = seeding.sequence(*key)
    return seeding.torch_seed(node), seeding.environment_seeds(node, 2)


def test_each_run_has_a_tree_of_its_own():
    """Not even a child of one run's node is that of another's."""
    seen = set()
    for run in range(5):
        node = seeding.sequence(7, "actor", 1, 2, run)
        seen.add(seeding.torch_seed(node))
        starts = [seeding.environment_seeds(node, 3, start) for start in range(5)]
        seen |= {seed for start in starts for seed in start}
    assert len(seen) == 5 * (1 + 5 * 3)
    assert seeding.sequence(7, "actor").entropy == 7


def test_a_seed_does_not_depend_on_what_was_asked_before():
    node = seeding.sequence(5, "actor", 1)
    before = seeding.torch_seed(node), seeding.environment_seeds(node, 4)
    node.spawn(3)
    assert (seeding.torch_seed(node), seeding.environment_seeds(node, 4)) == before


def test_more_environments_leave_the_first_ones_as_they_were():
    node = seeding.sequence(5, "actor", 1)
    few, many = (seeding.environment_seeds(node, count) for count in (3, 50))
    assert many[:3] == few
    assert seeding.environment_seeds(node, 0) == []


def test_environment_seeds_continue_from_their_state():
    node = seeding.sequence(5, "actor", 1)
    first = seeding.EnvironmentSeeds(node, 3)
    first(), first()
    state = first.state_dict()
    other = seeding.EnvironmentSeeds(seeding.sequence(5, "actor", 1, 77), 3)
    other()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert other() == first() == seeding.environment_seeds(node, 3, start=2)


def test_ranges():
    for _, node in itertools.islice(_nodes(), 100):
        torch_seed = seeding.torch_seed(node)
        assert type(torch_seed) is int
        assert 0 <= torch_seed < 2**63
        seeds = seeding.environment_seeds(node, 5)
        assert all(type(seed) is int for seed in seeds)
        assert all(0 <= seed < 2**31 for seed in seeds)


def test_seeds_use_their_whole_range():
    nodes = [seeding.sequence(0, "actor", index) for index in range(2_000)]
    for bits, seeds in (
        (63, [seeding.torch_seed(node) for node in nodes]),
        (31, [seeding.environment_seeds(node, 1)[0] for node in nodes]),
    ):
        deviation = 2**bits / np.sqrt(12 * len(nodes))
        assert abs(np.mean(seeds, dtype=np.float64) - 2 ** (bits - 1)) < 4 * deviation


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        seeding.sequence(0, "gambler")
