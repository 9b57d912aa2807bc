"""Rules on the run: each finds its fault; a healthy run is in learning_rules_test."""

import pytest

from impala_mp.config import base
from impala_mp.monitoring import findings
from tests.support import records


def _found(evaluations=(), settings=records.SETTINGS, **changed):
    made = records.make(**changed)
    return {each.name: each for each in findings.find(made, settings, evaluations)}


@pytest.mark.parametrize(
    ("changed", "name", "severity", "words"),
    [
        (
            {"health__updates_skipped": 1},
            "skipped updates",
            "warning",
            "1 of 1,000 updates were skipped",
        ),
        (
            {"health__updates_skipped": 70},
            "skipped updates",
            "error",
            "70 of 1,000 updates were skipped",
        ),
        ({"health__restarts": 3}, "restarts", "warning", "3 processes died"),
        ({"health__bad_data": 4}, "bad data", "warning", "4 unrolls were discarded"),
        (
            {"health__observations_outside": 9000},
            "observations outside",
            "warning",
            "9,000 observations",
        ),
        ({"health__discarded": 4000}, "discarded data", "warning", "40 % of the"),
        ({"health__mixed_unrolls": 1}, "mixed unrolls", "error", "In 1 unrolls"),
        ({"health__drift_alarms": 2}, "drift", "error", "2 drift checks failed"),
        ({"replay__dropped_share": 0.99}, "dropped replay", "warning", "99 % of the"),
        ({"time__learner_wait": 0.99}, "idle learner", "hint", "waits 99 %"),
        ({"time__actor_wait": 0.98}, "idle actors", "hint", "wait 98 %"),
        (
            {"throughput__agent_steps_per_sec": lambda t: 900.0 if t < 0.6 else 90.0},
            "slower",
            "hint",
            "from 900 to 90 steps a second",
        ),
    ],
)
def test_a_fault_is_found(changed, name, severity, words):
    found = _found(**changed)
    assert list(found) == [name]
    assert found[name].severity == severity
    assert words in found[name].sentence
    assert found[name].cure.endswith(".")


@pytest.mark.parametrize(
    "changed",
    [
        {"health__observations_outside": 3},
        {"health__discarded": 1000},
        {"replay__dropped_share": 0.8},
        {"time__learner_wait": 0.9},
        {"time__actor_wait": 0.9},
        {"throughput__agent_steps_per_sec": lambda t: 900.0 if t < 0.6 else 400.0},
        {
            "throughput__agent_steps_per_sec": lambda t: 900.0 if t < 0.6 else 90.0,
            "time_secs": 1.0,
        },
        {"memory__actor_mib": lambda t: 300.0 + 300.0 * (t > 0.2)},
        {"memory__actor_mib": lambda t: 300.0 + 300.0 * (t > 0.7)},
        {"memory__actor_mib": lambda t: 300.0 + 50.0 * t},
        {"memory__arena_mib": lambda t: 300.0 + 900.0 * t},
    ],
)
def test_a_smaller_fault_is_not_found(changed):
    assert _found(**changed) == {}


def test_trajectories_are_too_old_only_with_a_limit():
    lost = {"health__discarded": 4000}
    (found,) = _found(**lost).values()
    assert "too old" not in found.sentence
    assert "max_policy_lag" not in found.cure
    limited = {**records.SETTINGS, "max_policy_lag": 8}
    (found,) = _found(settings=limited, **lost).values()
    assert "40 % of the trajectories were discarded as too old" in found.sentence
    assert found.cure.startswith("Raise config.max_policy_lag (8), or lower")


@pytest.mark.parametrize("limit", base.POPART_SCALES)
@pytest.mark.parametrize("key", ["popart__scale", "popart__scale__b"])
def test_a_scale_at_its_limit(limit, key):
    (found,) = _found(**{key: limit}).values()
    assert f"{key.replace('__', '/')} is at its limit, {limit:.3g}" in found.sentence
    assert ("less" if limit < 1 else "more") in found.sentence


def test_memory_that_grows_steadily():
    found = _found(memory__actor_mib=lambda t: 300.0 + 900.0 * t)
    sentence = found["memory of actor"].sentence
    assert "grew from 678 to 1,157 MiB and keeps growing" in sentence


def test_a_replay_that_fills_is_no_leak():
    growing = {"memory__learner_mib": lambda t: 300.0 + 380.0 * t}
    settings = {**records.SETTINGS, "replay.ratio": 0.5, "replay.memory_mib": 256.0}
    assert list(_found(**growing)) == ["memory of learner"]
    assert _found(settings=settings, **growing) == {}


def _evaluation(policy, mean, half=5.0, purpose="final", games=100):
    return {
        "purpose": purpose,
        "policy": policy,
        "agent_steps": records.TOTAL,
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "episodes": games,
    }


def test_greedy_and_sampled_actions_that_differ():
    sampled = _found([_evaluation("greedy", 40.0), _evaluation("sampled", 99.0)])
    assert list(sampled) == ["sampled is better"]
    assert "config.evaluation.greedy (True) to False" in (
        sampled["sampled is better"].cure
    )
    both = [_evaluation("greedy", 190.0), _evaluation("sampled", 99.0)]
    (greedy,) = _found(both).values()
    assert greedy.name == "greedy is better"
    assert "lower config.loss.entropy_cost (0.01) at the end" in greedy.cure
    scheduled = {**records.SETTINGS, "schedules.entropy_cost": "linear(1, 0, 9)"}
    (greedy,) = _found(both, scheduled).values()
    assert "lower config.schedules.entropy_cost (linear(1, 0, 9))" in greedy.cure


def test_a_single_game_differs_by_chance():
    one = [_evaluation(p, m, 0.0, games=1) for p, m in (("greedy", 9), ("sampled", 99))]
    assert _found(one) == {}
    assert _found([_evaluation("sampled", 30.0, 0.0, games=1)]) == {}
    single = {"evaluation__return_mean": 30.0, "evaluation__return_high": 30.0}
    assert list(_found(**single)) == ["evaluation below training"]
    assert _found(**single, evaluation__episodes=1) == {}


@pytest.mark.parametrize(
    ("greedy", "sampled", "half"), [(90.0, 99.0, 1.0), (60.0, 99.0, 30.0)]
)
def test_a_small_or_uncertain_difference(greedy, sampled, half):
    both = [_evaluation("greedy", greedy, half), _evaluation("sampled", sampled, half)]
    assert _found(both) == {}


def test_an_evaluation_below_the_training():
    found = _found([_evaluation("sampled", 30.0)])
    assert list(found) == ["evaluation below training"]
    assert "mean return of 30, the training 100 before it." in (
        found["evaluation below training"].sentence
    )


def _evaluated(mean, high, every=20, **changed):
    """Records of which some have an evaluation."""
    made = records.make(**changed)
    for record in made[::every]:
        record["evaluation/return_mean"] = mean(record["episode/return_mean"])
        record["evaluation/return_high"] = high
    return [each.name for each in findings.find(made, records.SETTINGS)]


def test_evaluations_during_training_that_are_below_it():
    assert _evaluated(lambda now: 30.0, 40.0) == ["evaluation below training"]
    assert _evaluated(lambda now: 30.0, 110.0) == []
    assert _evaluated(lambda now: 30.0, 40.0, every=70) == [], "too few"
    assert _evaluated(lambda now: 0.0, 1.0, until=0.4) == [], "too early"


def test_evaluations_behind_a_training_that_rises_fast():
    behind = {"episode__return_mean": lambda t: 100.0 * (t > 0.2)}
    behind |= {"episode__return_max": 120.0, "until": 0.6}
    made = records.make(**behind)
    for before, now in zip(made[::40], made[40::40], strict=False):
        now["evaluation/return_mean"] = before["episode/return_mean"]
    names = [each.name for each in findings.find(made, records.SETTINGS)]
    assert "evaluation below training" not in names


def test_evaluations_of_other_versions():
    damaged = [{}, {"purpose": "final", "policy": "greedy", "mean": "x"}]
    assert _found(damaged) == {}
