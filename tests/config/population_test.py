"""Populations: what is refused, where members begin, and which of them copy."""

import math

import pytest

from impala_mp import errors
from impala_mp.config import fields, policies, population, validation
from tests.support import populations

_RATE = "population.ranges.learning_rate_factor"


def _config(**overrides):
    config = populations.get_config()
    config.update_from_flattened_dict(overrides)
    return config


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"population.size": 1}, r"size \(1\) must be from 2 to 200"),
        ({"actors.count": 4}, r"actors.count \(4\) must be .* to 6"),
        ({_RATE: (), "population.ranges.entropy_cost": ()}, "ranges are empty"),
        ({_RATE: (1.0,)}, r"\(\(1.0,\)\) must be empty or two finite numbers"),
        ({_RATE: (2.0, 1.0)}, "that ascend"),
        ({_RATE: (0.0, 1.0)}, "above 0"),
        ({_RATE: (1.0, math.inf)}, "finite"),
        ({"population.ranges.epsilon": (0.1, 1.5)}, "must be between 0 and 1"),
        ({"schedules.entropy_cost": "constant(0.1)"}, "has no effect on what"),
        ({"population.factors": ()}, "one or more finite numbers above 0"),
        ({"population.factors": (0.0, 1.0)}, "above 0"),
        ({"population.quantile": 0.6}, "between 0 and 0.5"),
        ({"population.quantile": 0.0}, "above 0"),
        ({"population.interval": 0}, "at least 1"),
        ({"algorithm": "dqn", "vtrace.lambda_": 0.95}, "learns action values"),
        (
            {"population.ranges.clip_c_threshold": (0.5, 2.0)},
            "may reach 2 by population.ranges.*which may be 1. Narrow",
        ),
        ({"environment.id": "Catch, Recall"}, "several tasks"),
        ({"learner.ranks": 2}, "learn one policy together"),
        (
            {"inference.mode": "server", "runtime.mode": "processes"},
            "has no population",
        ),
        ({"population.size": 0}, r"has no effect without population.size above 1"),
    ],
)
def test_bad_input_is_a_sentence(overrides, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        validation.validate(_config(**overrides), 2)


def test_members_have_no_fields_of_their_own():
    config = _config()
    config.policies.member_0 = {"batch_size": 8}
    with pytest.raises(errors.BadInput, match=r"members of a population have one"):
        validation.validate(config, 2)


def test_a_config_is_the_same_once_it_is_stored():
    config = _config()
    stored = fields.from_json(fields.to_json(config))
    assert fields.differences(config, stored) == {}
    assert population.starts(stored) == population.starts(config)


def test_members_have_a_share_of_the_steps_and_the_actors():
    config = _config(**{"actors.count": 6})
    parts = policies.of_run(config, dict.fromkeys(population.names(config), 1))
    assert len(parts) == 3
    for each in parts:
        validation.validate(each, 2)
        assert each.total_agent_steps * 3 == config.total_agent_steps
        assert (each.actors.count, each.actors.environments) == (2, 4)
        assert each.batch_size == config.batch_size


@pytest.mark.parametrize("seed", range(5))
def test_members_begin_spread_over_each_range(seed):
    config = _config(seed=seed)
    starts = population.starts(config)
    rates = [each["learning_rate_factor"] for each in starts]
    costs = [each["entropy_cost"] for each in starts]
    assert sorted(rates) == pytest.approx([0.01, 1.0, 100.0])
    assert costs == pytest.approx([0.001, 0.01, 0.1])
    assert population.starts(config) == starts


def test_some_seed_gives_ranges_in_different_orders():
    every = [population.starts(_config(seed=seed)) for seed in range(10)]
    orders = {tuple(x["learning_rate_factor"] for x in each) for each in every}
    assert len(orders) > 2


_SCORES = [5.0, 1.0, 9.0, 7.0, 2.0, 8.0, 3.0, 4.0]


def _choose(scores, may_copy=None, **overrides):
    config = _config(**{"population.size": len(scores), **overrides})
    return population.choose(config, 1, scores, may_copy or [True] * len(scores))


def test_the_worst_copy_the_best():
    for seed in range(20):
        pairs = _choose(_SCORES, seed=seed)
        assert set(pairs) == {1, 4}
        assert set(pairs.values()) <= {2, 5}
    assert len({_choose(_SCORES, seed=seed)[1] for seed in range(20)}) == 2


def test_at_least_one_member_copies():
    assert _choose([3.0, 1.0, 2.0], **{"population.quantile": 0.1}) == {1: 0}


def test_a_member_without_a_score_is_left_out():
    nan = math.nan
    assert _choose([nan, 1.0, 2.0]) == {1: 2}
    assert _choose([nan, 1.0, nan]) == {}
    assert _choose([nan, nan, nan]) == {}


def test_an_equal_score_is_not_copied():
    assert _choose([2.0, 2.0, 2.0]) == {}


def test_a_member_that_may_not_copy_keeps_its_state():
    assert _choose([1.0, 2.0, 3.0], [False, True, True]) == {}


def test_copies_stay_within_the_ranges():
    config = _config(**{"population.factors": (0.01, 100.0)})
    values = {"learning_rate_factor": 1.0, "entropy_cost": 0.01}
    found = set()
    for number in range(50):
        one = population.perturbed(config, number, 1, values)
        assert populations.RATES[0] <= one["learning_rate_factor"]
        assert one["learning_rate_factor"] <= populations.RATES[1]
        assert populations.COSTS[0] <= one["entropy_cost"] <= populations.COSTS[1]
        found.add(tuple(one.values()))
        assert one == population.perturbed(config, number, 1, values)
    assert len(found) == 4
