"""The live hyperparameters: their names, bounds and schedules."""

from typing import Any

from impala_mp import errors
from impala_mp.config import base, fields, schedules

NAMES = tuple(base.LIVE)

_SAMPLES = 100  # between two changes of slope, where two schedules are compared

Schedules = dict[str, schedules.Schedule]


def of_config(config: Any) -> Schedules:
    """The schedule of every live hyperparameter, constant where there is none."""
    found: Schedules = {}
    for name in NAMES:
        text = config.schedules[name]
        field = base.LIVE[name]
        value = (
            field.default if field.scheduled_only else fields.get(config, field.name)
        )
        found[name] = schedules.parse(text) if text else schedules.constant(value)
    return found


def scheduled(config: Any) -> Schedules:
    """Those that have a schedule of their own."""
    return {k: v for k, v in of_config(config).items() if config.schedules[k]}


def initial(config: Any) -> dict[str, float]:
    """What they are when a run begins."""
    return {name: schedule.at(0.0) for name, schedule in of_config(config).items()}


def check_value(name: str, value: float, called: str = "") -> None:
    """Refuses a value out of bounds; `called` is what the user knows it as.

    Raises:
      BadInput: with the value and the bounds.
    """
    rule = base.LIVE[name].broken_rule(value)
    if rule:
        raise errors.BadInput(f"{called or name} ({value!r}) must be {rule.words}.")


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
    """Refuses schedules that are out of bounds.

    Raises:
      BadInput: with the field, its value and the cure.
    """
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
