"""History: bounded, and with the means of what it merged."""

import math
import random

import pytest

from impala_mp.monitoring import evidence


def _records(count):
    return [
        {"agent_steps": 10 * k, "updates": k, "loss/total": float(k), "health/run": k}
        for k in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [0, 1, 512, 513, 1024, 1500, 5000])
def test_a_history_is_bounded_and_in_order(count):
    found = evidence.thinned(_records(count)).records
    assert min(count, 256) <= len(found) <= 512
    steps = [record["agent_steps"] for record in found]
    assert steps == sorted(set(steps))
    assert steps[-1:] == ([10 * count] if count else [])


def test_merged_records_have_the_mean_of_numbers_and_the_newest_counters():
    found = evidence.thinned(_records(1024)).records
    stride = round(1024 / len(found))
    for index, record in enumerate(found, 1):
        assert record["updates"] == record["health/run"] == index * stride
        members = range((index - 1) * stride + 1, index * stride + 1)
        assert record["loss/total"] == pytest.approx(sum(members) / stride)


def test_a_key_that_some_records_lack_stays():
    made = _records(600)
    made[3]["evaluation/return_mean"] = 5.0
    found = evidence.thinned(made).records
    assert [r["evaluation/return_mean"] for r in found if len(r) > 4] == [5.0]


def test_a_rewind_drops_the_records_beyond():
    rng = random.Random(0)
    history, kept = evidence.thinned(), []
    for _ in range(400):
        steps = rng.randrange(1000)
        kept = [each for each in kept if each <= steps] + [steps]
        history.add({"agent_steps": steps})
        assert [r["agent_steps"] for r in history.records] == kept


def test_numbers_of_a_short_run_are_unknown():
    known = evidence.Evidence(_records(5), {"total_agent_steps": 100})
    assert math.isnan(known.recent("loss/total"))
    assert math.isnan(known.first("loss/total"))
    assert math.isnan(known.last("missing"))
    assert math.isnan(known.setting("loss.entropy_cost"))
    assert known.last("loss/total") == 5.0
    assert known.progress == 0.5


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-1e-12, "0"), (1.4234, "1.42"), (-0.46, "-0.46"), (265e3, "265,000")],
)
def test_numbers_as_text(value, text):
    assert evidence.number(value) == text


def test_the_field_that_sets_a_value():
    settings = {"loss.entropy_cost": 0.1, "optimizer.epsilon": 1e-5}
    assert evidence.field("loss.entropy_cost", settings) == (
        "config.loss.entropy_cost (0.1)"
    )
    for other in ("schedules.entropy_cost", "population.ranges.entropy_cost"):
        found = evidence.field("loss.entropy_cost", {**settings, other: "x"})
        assert found == f"config.{other} (x)"
    # Only the field of the same name, and only if it is live.
    settings["schedules.epsilon"] = "linear(1, 0, 9)"
    assert evidence.field("optimizer.epsilon", settings).endswith("epsilon (1e-05)")
    assert evidence.field("actors.epsilon", settings) == (
        "config.schedules.epsilon (linear(1, 0, 9))"
    )
    assert evidence.field("missing", {}) == "config.missing"
