"""The live hyperparameters: their names, bounds and schedules."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from impala_mp import errors
from impala_mp.config import schedules


class _Bounds(NamedTuple):
    words: str
    holds: Callable[[float], bool]


_COST = _Bounds("finite and at least 0", lambda x: 0.0 <= x < math.inf)
_THRESHOLD = _Bounds("at least 0", lambda x: x >= 0.0)
_BOUNDS = {
    "epsilon": _Bounds("between 0 and 1", lambda x: 0.0 <= x <= 1.0),
    # Logits of any network stay finite when they are divided by it.
    "temperature": _Bounds("between 0.001 and 1000", lambda x: 1e-3 <= x <= 1e3),
    "entropy_cost": _COST,
    "learning_rate_factor": _COST,
    "clip_rho_threshold": _Bounds("above 0", lambda x: x > 0.0),
    "clip_pg_rho_threshold": _THRESHOLD,
    "clip_c_threshold": _THRESHOLD,
}

NAMES = tuple(_BOUNDS)

# The field of the config that holds the value where there is no schedule; 1 for others.
_GROUPS = {
    "epsilon": "actors",
    "temperature": "actors",
    "entropy_cost": "loss",
    "clip_rho_threshold": "vtrace",
    "clip_pg_rho_threshold": "vtrace",
    "clip_c_threshold": "vtrace",
}

_SAMPLES = 100  # between two changes of slope, where two schedules are compared

Schedules = dict[str, schedules.Schedule]


def of_config(config: Any) -> Schedules:
    """The schedule of every live hyperparameter, constant where there is none."""
    found: Schedules = {}
    for name in NAMES:
        text = config.schedules[name]
        group = _GROUPS.get(name)
        base = config[group][name] if group else 1.0
        found[name] = schedules.parse(text) if text else schedules.constant(base)
    return found


def scheduled(config: Any) -> Schedules:
    """Those that have a schedule of their own."""
    return {k: v for k, v in of_config(config).items() if config.schedules[k]}


def initial(config: Any) -> dict[str, float]:
    """What they are when a run begins."""
    return {name: schedule.at(0.0) for name, schedule in of_config(config).items()}


def check_value(name: str, value: float, called: str = "", cure: str = "") -> None:
    """Refuses a value out of bounds; `called` is what the user knows it as.

    Raises:
      BadInput: with the value, the bounds and the cure.
    """
    bounds = _BOUNDS[name]
    if not (isinstance(value, (int, float)) and bounds.holds(value)):
        raise errors.BadInput(
            f"{called or name} ({value!r}) must be {bounds.words}{cure}."
        )


def check_order(values: Schedules, agent_steps: float = 0.0) -> None:
    """Refuses a clip_c_threshold above clip_rho_threshold, from `agent_steps` on.

    Raises:
      BadInput: with the agent step at which it is.
    """
    c, rho = values["clip_c_threshold"], values["clip_rho_threshold"]
    knots = sorted({agent_steps, *(s for s in c.steps + rho.steps if s > agent_steps)})
    points = knots + [
        a + (b - a) * i / _SAMPLES
        for a, b in zip(knots, knots[1:], strict=False)
        for i in range(1, _SAMPLES)
    ]
    for point in sorted(points):
        if c.at(point) > rho.at(point):
            raise errors.BadInput(
                f"vtrace.clip_c_threshold ({c.at(point):.6g}) must not exceed"
                f" vtrace.clip_rho_threshold ({rho.at(point):.6g}), and does at agent"
                f" step {point:,.0f}: lower it."
            )


def validate(config: Any) -> None:
    """Refuses fields and schedules that are out of bounds.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    for name, group in _GROUPS.items():
        field = f"{group}.{name}"
        check_value(name, config[group][name], field, f": set config.{field}")
    for name, text in config.schedules.items():
        field = f"schedules.{name}"
        try:
            values = schedules.parse(text).values if text else ()
        except errors.BadInput as error:
            raise errors.BadInput(
                f"{field} ({text!r}) {error} Set config.{field}."
            ) from error
        for value in values:
            check_value(name, value, f"{field}={text}, which reaches {name}")
    check_order(of_config(config))
