"""Live hyperparameters: their names, bounds and schedules."""

import dataclasses
from typing import Any

from impala_mp import errors
from impala_mp.config import base, derived, fields, schedules

NAMES = tuple(base.LIVE)

# Those of a policy's loss and sampling, which learners of action values do not read.
OF_A_POLICY = (
    "temperature",
    "entropy_cost",
    "clip_rho_threshold",
    "clip_pg_rho_threshold",
    "clip_c_threshold",
)

_SAMPLES = 100  # between two changes of slope, where two schedules are compared

Schedules = dict[str, schedules.Schedule]


@dataclasses.dataclass(frozen=True)
class LiveHyperparameters:
    """Schedules of all live hyperparameters, parsed once for all their readers."""

    schedules: Schedules  # constant where the config has none
    texts: dict[str, str]  # schedules as the config has them
    unread: tuple[str, ...]  # names without an effect, by the config's algorithm

    def scheduled(self) -> Schedules:
        """Returns the schedules that the config has."""
        return {name: self.schedules[name] for name in self.texts}

    def initial(self) -> dict[str, float]:
        """Returns the values at the start of a run."""
        return {name: schedule.at(0.0) for name, schedule in self.schedules.items()}


def of_config(config: Any) -> LiveHyperparameters:
    """Parses and checks the schedules of `config`.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    texts = {name: config.schedules[name] for name in NAMES if config.schedules[name]}
    found = {
        name: _parse(name, texts[name])
        if name in texts
        else schedules.constant(
            field.default if field.scheduled_only else fields.get(config, field.name)
        )
        for name, field in base.LIVE.items()
    }
    check_order(found)
    unread = OF_A_POLICY if derived.learns_action_values(config) else ()
    return LiveHyperparameters(found, texts, unread)


def _parse(name: str, text: str) -> schedules.Schedule:
    field = f"schedules.{name}"
    try:
        schedule = schedules.parse(text)
    except errors.BadInput as error:
        raise errors.BadInput(f"{field} ({text!r}) {error} Set config.{field}.") from (
            error
        )
    for value in schedule.values:
        check_value(name, value, f"{field}={text}, which reaches {name}")
    return schedule


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
                f" step {point:,.0f}. Lower it."
            )
