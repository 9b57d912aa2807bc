"""Schedules of live hyperparameters over agent steps; Ape-X's ladder over actors."""

import bisect
import dataclasses
import math
import re
from typing import Any

from impala_mp import errors

KINDS = {
    "constant": "constant(value)",
    "linear": "linear(start, end, agent steps)",
    "exponential": "exponential(start, end, agent steps)",
    "piecewise": "piecewise(value, agent step, value, agent step, value, ...)",
}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Values at agent steps, and how to get from one to the next.

    `steps` begin at 0 and ascend; after the last of them the value stays.
    """

    kind: str
    steps: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, agent_steps: float) -> float:
        """The value at so many agent steps; at each of `steps` exactly its own."""
        i = bisect.bisect_right(self.steps, agent_steps) - 1
        if self.kind == "piecewise" or i + 1 == len(self.steps):
            return self.values[i]
        start, end = self.values[i : i + 2]
        share = (agent_steps - self.steps[i]) / (self.steps[i + 1] - self.steps[i])
        if self.kind == "linear":
            return start + share * (end - start)
        return float(start * (end / start) ** share)


def constant(value: float) -> Schedule:
    """The same value at any agent step."""
    return Schedule("constant", (0.0,), (value,))


def parse(text: str) -> Schedule:
    """A schedule from one of the forms in `KINDS`.

    Raises:
      BadInput: what is wrong with it, as the second half of a sentence.
    """
    match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text)
    if not match or match[1] not in KINDS:
        raise errors.BadInput(f"must be one of {'; '.join(KINDS.values())}.")
    kind = match[1]
    try:
        numbers = [float(number) for number in match[2].split(",")]
    except ValueError as error:
        raise errors.BadInput(f"must have numbers only: {KINDS[kind]}.") from error
    expected = {"constant": 1, "linear": 3, "exponential": 3}.get(kind)
    if len(numbers) != expected and (expected or len(numbers) % 2 == 0):
        raise errors.BadInput(
            f"has {len(numbers)} numbers, and has to be {KINDS[kind]}."
        )
    if kind == "piecewise":
        made = Schedule(kind, (0.0, *numbers[1::2]), tuple(numbers[::2]))
    else:
        made = Schedule(kind, (0.0, *numbers[2:]), tuple(numbers[:2]))
    _check(made)
    return made


def _check(schedule: Schedule) -> None:
    steps, values = schedule.steps, schedule.values
    ascending = all(a < b for a, b in zip(steps, steps[1:], strict=False))
    if not ascending or steps[-1] == math.inf:
        raise errors.BadInput("must have agent steps above 0 that ascend.")
    if schedule.kind in ("linear", "exponential") and not all(
        math.isfinite(value) for value in values
    ):
        raise errors.BadInput("must go from a finite value to a finite one.")
    if schedule.kind == "exponential" and min(values) <= 0.0:
        raise errors.BadInput("must go from a value above 0 to one above 0.")


def ladder(num_actors: int, alpha: float) -> list[float]:
    """Exponents by which actor i acts with epsilon_i = epsilon ** exponents[i].

    1 + alpha * i / (N - 1), of N actors (Ape-X, Horgan et al. 2018, arXiv 1803.00933,
    section 4.1, with alpha = 7); all 1 with alpha = 0.
    """
    return [1.0 + alpha * i / max(1, num_actors - 1) for i in range(num_actors)]


def rungs(settings: Any, num_actors: int) -> list[list[float]]:
    """Returns the exponents of `ladder` for each actor and environment, [N][E].

    With `ladder_over=environments` environment e of actor i of N has rung i + N e of
    N E, so that each actor has rungs from all over the ladder (SEED RL: Espeholt et al.
    2020, arXiv 1910.06591). Else all environments of actor i have rung i of N.

    Args:
      settings: config.actors.
    """
    size, alpha = settings.environments, settings.epsilon_ladder
    if settings.ladder_over == "actors":
        return [[each] * size for each in ladder(num_actors, alpha)]
    exponents = ladder(num_actors * size, alpha)
    return [exponents[i::num_actors] for i in range(num_actors)]
