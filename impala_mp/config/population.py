"""Population-based training: members, their first live values, and what is copied.

The members are policies of one config, which differ in live values. From time to time
the worst copy the best, and continue with other live values (Jaderberg et al. 2017,
arXiv 1711.09846). All draws depend on the seed and the round alone.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from impala_mp import errors
from impala_mp.config import base, derived, live_hyperparameters

Range = tuple[float, float]


def names(config: Any) -> tuple[str, ...]:
    """Returns the names of the members; () without a population."""
    return tuple(f"member_{number}" for number in range(config.population.size))


def ranges(config: Any) -> dict[str, Range]:
    """Returns the bounds of the live values that differ between members."""
    found = config.population.ranges
    return {name: tuple(found[name]) for name in base.LIVE if found[name]}


def check(config: Any) -> None:
    """Refuses a population that cannot run.

    Raises:
      BadInput: with the fields, their values and the cure.
    """
    settings = config.population
    if not settings.size:
        return
    count, size = config.actors.count, settings.size
    if size == 1 or size > derived.MAX_ACTORS:  # each needs one
        raise errors.BadInput(
            f"population.size ({size}) must be from 2 to {derived.MAX_ACTORS}, or 0 for"
            " no population. Set config.population.size."
        )
    if count % size:
        raise errors.BadInput(
            f"actors.count ({count}) must be a multiple of population.size ({size}), so"
            " that each member has as many actors as any other. Set"
            f" config.actors.count to {-(-count // size) * size}."
        )
    if config.policies:
        raise errors.BadInput(
            f"config.policies has fields of {', '.join(config.policies)}, and the"
            " members of a population have one config. Set config.population.ranges,"
            " or config.population.size=0."
        )
    if config.inference.mode == "server":
        raise errors.BadInput(
            f"inference.mode=server has no population ({size} members). Set"
            " config.inference.mode=actor."
        )
    if config.learner.ranks > 1:
        raise errors.BadInput(
            f"learner.ranks ({config.learner.ranks}) learn one policy together, and"
            " population.size makes several, which one process learns. Set"
            " config.learner.ranks=1, or config.population.size=0."
        )
    if len(derived.task_names(config.environment)) > 1:
        raise errors.BadInput(
            f"environment.id ({config.environment.id!r}) names several tasks, and the"
            " members of a population are compared by one. Name one environment."
        )
    _check_ranges(config)


def _check_ranges(config: Any) -> None:
    found = ranges(config)
    if not found:
        raise errors.BadInput(
            "population.ranges are empty, and the members of a population differ by"
            " their live values. Set one of them, as in"
            ' config.population.ranges.learning_rate_factor="(0.1,10)".'
        )
    unread = live_hyperparameters.OF_A_POLICY * derived.learns_action_values(config)
    for name, bounds in found.items():
        for value in bounds:
            live_hyperparameters.check_value(name, value, f"population.ranges.{name}")
        if config.schedules[name]:
            raise errors.BadInput(
                f"schedules.{name} ({config.schedules[name]!r}) has no effect on what"
                f" population.ranges.{name} sets. Leave out one of them."
            )
        if name in unread:
            raise errors.BadInput(
                f"population.ranges.{name} ({bounds}) has no effect with"
                f" algorithm={config.algorithm}, which learns action values. Leave out"
                f" config.population.ranges.{name}."
            )
    c, rho = (
        found.get(name) or (config.vtrace[name],) * 2
        for name in ("clip_c_threshold", "clip_rho_threshold")
    )
    if c[1] > rho[0]:
        raise errors.BadInput(
            f"vtrace.clip_c_threshold may reach {c[1]:g} by population.ranges, and must"
            f" not exceed vtrace.clip_rho_threshold, which may be {rho[0]:g}. Narrow"
            " the ranges."
        )


def starts(config: Any) -> list[dict[str, float]]:
    """Returns the first live values of each member.

    Those of a range are spread over it evenly in their logarithm: the first range in
    the order of the members, and each other one in an order that is drawn.
    """
    size = config.population.size
    found: list[dict[str, float]] = [{} for _ in range(size)]
    for number, (name, (low, high)) in enumerate(ranges(config).items()):
        order = list(range(size))
        if number:
            _draws(config, name).shuffle(order)
        for place, member in enumerate(order):
            share = place / (size - 1)
            value = math.exp((1 - share) * math.log(low) + share * math.log(high))
            found[member][name] = _within(value, (low, high))
    return found


def _draws(config: Any, what: object) -> random.Random:
    return random.Random(f"{config.seed} population {what}")


def _within(value: float, bounds: Range) -> float:
    return min(max(value, bounds[0]), bounds[1])


def choose(
    config: Any, number: int, scores: Sequence[float], may_copy: Sequence[bool]
) -> dict[int, int]:
    """Returns the members that copy in a round, and whom: truncation selection.

    The worst share `population.quantile` copies members that are drawn from the best.
    Members without a score are left out, and so is a copy of an equal score.
    """
    ranked = sorted(
        (k for k, score in enumerate(scores) if not math.isnan(score)),
        key=lambda k: (scores[k], k),
    )
    share = math.floor(config.population.quantile * len(scores))
    count = min(max(1, share), len(ranked) // 2)
    if not count:
        return {}
    draws, best = _draws(config, number), ranked[-count:]
    pairs = {member: draws.choice(best) for member in ranked[:count]}
    return {
        member: source
        for member, source in pairs.items()
        if may_copy[member] and scores[source] > scores[member]
    }


def perturbed(
    config: Any, number: int, member: int, values: Mapping[str, float]
) -> dict[str, float]:
    """Returns the live values of a member's copy: each times one of the factors.

    They stay within their ranges.
    """
    draws = _draws(config, f"{number} {member}")
    factors = config.population.factors
    return {
        name: _within(values[name] * draws.choice(factors), bounds)
        for name, bounds in ranges(config).items()
    }
