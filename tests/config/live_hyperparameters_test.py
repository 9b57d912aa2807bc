"""Bounds of live hyperparameters, at every step of their schedules."""

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import live_hyperparameters, schedules, validation


def _validate(**fields):
    config = config_lib.get_base_config()
    config.update_from_flattened_dict(fields)
    validation.validate(config, num_cores=2)
    return config


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"actors.epsilon": float("nan")}, r"actors.epsilon \(nan\) .* Set config.act"),
        ({"actors.temperature": 0.0}, r"actors.temperature \(0.0\).*0.001 and 1000"),
        ({"loss.entropy_cost": float("inf")}, "finite and at least 0"),
        ({"loss.entropy_cost": -1.0}, r"loss.entropy_cost \(-1.0\)"),
        ({"vtrace.clip_rho_threshold": 0.0}, "above 0"),
        ({"vtrace.clip_pg_rho_threshold": -1.0}, "at least 0"),
        ({"actors.epsilon_ladder": -1.0}, "at least 0"),
        ({"schedules.epsilon": "linear(0, 2, 10)"}, r"reaches epsilon \(2.0\)"),
        ({"schedules.learning_rate_factor": "constant(nan)"}, "learning_rate_factor"),
        ({"schedules.clip_rho_threshold": "linear(1, 0.5, 10)"}, "agent step 0|exceed"),
    ],
)
def test_live_values_out_of_bounds_are_refused(fields, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        _validate(**fields)


def test_the_order_of_thresholds_holds_at_every_step():
    rho, c = "schedules.clip_rho_threshold", "schedules.clip_c_threshold"
    _validate(**{rho: "linear(2, 1, 100)", c: "linear(2, 1, 100)"})
    _validate(**{rho: "constant(inf)", c: "piecewise(1, 50, 2)"})
    with pytest.raises(errors.BadInput, match=r"\(2\) must not .*\(1.5\).* step 50\."):
        _validate(**{rho: "linear(2, 1, 100)", c: "piecewise(0.5, 50, 2)"})
    # Equal at both ends, and not in between.
    with pytest.raises(errors.BadInput, match="must not exceed"):
        _validate(**{rho: "exponential(2, 1, 100)", c: "linear(2, 1, 100)"})
    # What has been is over.
    values = live_hyperparameters.of_config(
        _validate(**{rho: "piecewise(1, 50, 3)", c: "constant(1)"})
    ).schedules
    values["clip_c_threshold"] = schedules.constant(2.0)
    live_hyperparameters.check_order(values, agent_steps=50)
    with pytest.raises(errors.BadInput, match="agent step 49"):
        live_hyperparameters.check_order(values, agent_steps=49)


def test_a_schedule_comes_before_the_field():
    config = _validate(**{"actors.epsilon": 0.5, "loss.entropy_cost": 0.25})
    assert live_hyperparameters.of_config(config).initial() == {
        "epsilon": 0.5,
        "temperature": 1.0,
        "entropy_cost": 0.25,
        "learning_rate_factor": 1.0,
        "clip_rho_threshold": 1.0,
        "clip_pg_rho_threshold": 1.0,
        "clip_c_threshold": 1.0,
    }
    config = _validate(**{"schedules.epsilon": "exponential(0.1, 1, 7)"})
    assert live_hyperparameters.of_config(config).initial()["epsilon"] == 0.1
