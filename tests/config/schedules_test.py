"""Schedules against their formulas, what is refused of them, and the ladder."""

import math
import re
import types

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import base, schedules, validation


def test_constant():
    schedule = schedules.parse("constant(0.3)")
    assert schedule == schedules.constant(0.3)
    assert [schedule.at(t) for t in (0, 1, 10**9)] == [0.3] * 3
    assert schedules.parse("constant(inf)").at(5) == math.inf


@pytest.mark.parametrize(("start", "end"), [(0.3, 0.01), (0.01, 0.3), (0.0, 1.0)])
def test_linear(start, end):
    schedule = schedules.parse(f"linear({start}, {end}, 1e3)")
    for t in (0, 1, 250, 999):
        expected = start * (1.0 - t / 1000.0) + end * (t / 1000.0)
        assert schedule.at(t) == pytest.approx(expected, rel=1e-12)
    assert (schedule.at(0), schedule.at(1000), schedule.at(10**9)) == (start, end, end)


def test_exponential():
    schedule = schedules.parse(" exponential( 1, 0.01 , 1_000 ) ")
    for t in (0, 1, 250, 999):
        log = math.log(1.0) + t / 1000.0 * (math.log(0.01) - math.log(1.0))
        assert schedule.at(t) == pytest.approx(math.exp(log), rel=1e-12)
    assert schedule.at(500) == pytest.approx(0.1)
    assert (schedule.at(1000), schedule.at(10**9)) == (0.01, 0.01)


def test_piecewise():
    schedule = schedules.parse("piecewise(0, 10, 1, 25, 0.5)")
    naive = [0.0] * 10 + [1.0] * 15 + [0.5] * 10
    assert [schedule.at(t) for t in range(35)] == naive
    assert schedules.parse("piecewise(2)").at(7) == 2.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cosine(1, 0, 10)", r"must be one of constant\(value\); linear\(start"),
        ("0.3", "must be one of"),
        ("linear(1, 0, 10", "must be one of"),
        ("linear(1, 0)", "has 2 numbers, and has to be linear"),
        ("constant(1, 2)", "has 2 numbers"),
        ("piecewise(1, 2)", "has 2 numbers"),
        ("linear(1, zero, 10)", "numbers only"),
        ("linear()", "numbers only"),
        ("linear(1, 0, 0)", "above 0 that ascend"),
        ("piecewise(1, 5, 0, 5, 1)", "above 0 that ascend"),
        ("linear(1, 0, nan)", "above 0 that ascend"),
        ("linear(1, 0, inf)", "above 0 that ascend"),
        ("linear(inf, 1, 5)", "finite value"),
        ("linear(nan, 1, 5)", "finite value"),
        ("exponential(1, 0, 5)", "above 0 to one above 0"),
    ],
)
def test_malformed_schedules_are_refused(text, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        schedules.parse(text)
    config = config_lib.get_base_config()
    config.schedules.entropy_cost = text
    with pytest.raises(
        errors.BadInput, match=r"schedules.entropy_cost \('.*Set config"
    ):
        validation.validate(config, num_cores=2)


def test_the_ladder_is_ape_xs():
    assert schedules.ladder(4, 7.0) == [1.0, 1.0 + 7 / 3, 1.0 + 14 / 3, 8.0]
    epsilons = [0.4**exponent for exponent in schedules.ladder(8, 7.0)]
    assert epsilons == pytest.approx([0.4 ** (1 + i) for i in range(8)])
    assert schedules.ladder(3, 0.0) == [1.0] * 3
    assert schedules.ladder(1, 7.0) == [1.0]


def _rungs(over):
    settings = types.SimpleNamespace(
        environments=3, epsilon_ladder=5.0, ladder_over=over
    )
    return schedules.rungs(settings, 2)


def test_rungs_are_of_actors_or_of_environments():
    assert _rungs("actors") == [[1.0] * 3, [6.0] * 3]
    assert _rungs("environments") == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


def test_descriptions_name_only_fields_that_there_are():
    """The factor on the learning rate has a schedule alone."""
    groups = "|".join(group.name for group in base.GROUPS if group.name)
    for field in base.FIELDS:
        for name in re.findall(rf"\b(?:{groups})\.[a-z_]+", field.meaning):
            assert name in base.BY_NAME, field.name
    meaning = base.BY_NAME["schedules.learning_rate_factor"].meaning
    assert meaning == "schedule of the factor on optimizer.learning_rate"
    assert base.BY_NAME["schedules.epsilon"].meaning == "schedule of actors.epsilon"
