"""Records in memory: bounded, and true to what was learned."""

import math

from impala_mp.monitoring import history


def _record(i, **more):
    step = {"agent_steps": 100 * i, "updates": i, "time_secs": 10.0 * i}
    return {**step, "episode/return_mean": float(i), "health/restarts": i, **more}


def _filled(count, **more):
    found = history.History()
    for i in range(1, count + 1):
        found.add(_record(i, **more))
    return found


def test_it_is_bounded_and_keeps_the_shape_of_the_curve():
    found = _filled(25_000)
    xs, ys = found.series("episode/return_mean")
    assert 500 <= len(xs) <= 1000
    assert xs == sorted(xs)
    assert xs[-1] == 2_500_000
    # A merged point is the mean of its records, at the step of its last one.
    assert all(x / 100 - 64 < y <= x / 100 for x, y in zip(xs, ys, strict=True))
    assert math.isclose(found.rate("agent_steps"), 10.0)
    assert found.last == _record(25_000)


def test_a_restarted_learner_learns_again_from_its_checkpoint():
    found = _filled(10)
    found.add(_record(6, note=1.0))
    assert found.series("agent_steps")[0] == [100, 200, 300, 400, 500, 600]
    assert found.last["note"] == 1.0


def test_values_that_are_no_numbers_are_left_out():
    found = history.History()
    found.add({"agent_steps": 1, "policy/actions": [0.5, 0.5], "x": math.nan, "y": "?"})
    assert found.last == {"agent_steps": 1}


def test_the_rate_is_that_of_the_last_minute():
    found = history.History()
    for secs, steps in ((1, 10), (100, 20), (140, 4020), (150, 5020)):
        found.add({"agent_steps": steps, "time_secs": float(secs)})
    assert found.rate("agent_steps") == 100.0
    assert found.secs_left(6020) == 10.0
    assert found.secs_left(10) == 0.0


def test_the_rate_of_a_long_run_is_that_of_the_last_minute_too():
    found = _filled(25_000)
    for k in range(1, 8):
        more = {"agent_steps": 2_500_000 + 200 * k, "time_secs": 250_000.0 + 10 * k}
        found.add(_record(25_000, **more))
    assert found.rate("agent_steps") == 20.0


def test_a_restarted_learner_has_the_rate_of_what_it_learns_again():
    found = _filled(2500)
    for i in (500, 501):
        found.add(_record(i))
    assert found.rate("updates") == 0.1


def test_the_time_left_is_unknown_without_a_speed():
    found = history.History()
    assert found.secs_left(100) is None
    found.add({"agent_steps": 1})
    assert found.secs_left(100) is None
    found.add({"agent_steps": 2, "throughput/agent_steps_per_sec": 49.0})
    assert found.secs_left(100) == 2.0


def test_the_best_is_an_evaluation_if_there_was_one():
    found = history.History()
    found.add(_record(1, **{"episode/count": 7}))
    assert found.best is None  # a mean over seven games
    for i, mean in ((2, 5.0), (3, 9.0), (4, 4.0)):
        found.add({**_record(i), "episode/return_mean": mean})
    assert found.best == (9.0, 300, False)
    for i, mean in ((5, 1.0), (6, 3.0), (7, 3.0), (8, 2.0)):
        found.add(_record(i, **{"evaluation/return_mean": mean}))
    assert found.best == (3.0, 600, True)
    assert found.evaluation == {"mean": 2.0, "agent_steps": 800}
