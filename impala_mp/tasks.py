"""Several tasks in one run: what all of them have in common, and which one a row is of.

Actor i plays task i mod n. Observations become a dict: those of the task, padded with
zeros to the largest; the number of the task; and, where they have different numbers of
actions, what is allowed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp import errors, nest, specs

OBSERVATION, TASK, ALLOWED = "observation", "task", "allowed"  # keys


def names(environment: Any) -> tuple[str, ...]:
    """The ids in `config.environment.id`, which are separated by commas.

    Raises:
      BadInput: one is there twice, or empty.
    """
    ids = tuple(name.strip() for name in environment.id.split(","))
    if "" in ids or len(set(ids)) < len(ids):
        raise errors.BadInput(
            f"environment.id ({environment.id!r}) must be one id, or different ones"
            " separated by commas: set config.environment.id."
        )
    return ids


def suffixes(environment: Any) -> tuple[str, ...]:
    """What tells the numbers of several tasks apart; "" for a single one."""
    ids = names(environment)
    if len(ids) == 1:
        return ("",)
    short = tuple(name.replace(":", "/").rpartition("/")[2] for name in ids)
    return tuple(f"/{name}" for name in (short if len(set(short)) == len(ids) else ids))


def joint_spec(
    ids: Sequence[str], parts: Sequence[specs.EnvironmentSpec]
) -> specs.EnvironmentSpec:
    """What the environments `ids` are as one.

    Raises:
      BadInput: they have too little in common.
    """
    first = parts[0]
    for name, part in zip(ids, parts, strict=True):
        if part.frames_per_step != first.frames_per_step:
            raise _different(ids[0], name, "frames a step", first, part)
    observation = first.observation
    for name, part in zip(ids[1:], parts[1:], strict=True):
        try:
            observation = nest.map_structure(_larger, observation, part.observation)
        except ValueError as error:
            raise _different(ids[0], name, "observations", first, part) from error
    merged = {
        OBSERVATION: observation,
        TASK: specs.CategoriesSpec((), np.dtype(np.int64), (len(ids),), (0,)),
    }
    action = first.action
    if any(part.action != action for part in parts):
        action = _largest_action(ids, parts)
        merged[ALLOWED] = specs.array_spec((action.num_actions,), np.bool_)
    return specs.EnvironmentSpec(
        merged,
        action,
        first.frames_per_step,
        ALLOWED if ALLOWED in merged else "",
        len(ids),
    )


def _different(
    one: str, other: str, what: str, a: specs.EnvironmentSpec, b: specs.EnvironmentSpec
) -> errors.BadInput:
    return errors.BadInput(
        f"environment.id: {one} and {other} have {what} that cannot be padded to the"
        f" same ({a} and {b}): choose tasks that can."
    )


def _larger(one: specs.ArraySpec, other: specs.ArraySpec) -> specs.ArraySpec:
    """The array that both fit into.

    Raises:
      ValueError: there is none.
    """
    if one == other:
        return one
    plain = type(one) is type(other) is specs.ArraySpec
    if not plain or one.dtype != other.dtype or len(one.shape) != len(other.shape):
        raise ValueError("different kinds of arrays")
    sizes = map(max, one.shape, other.shape)
    return specs.array_spec(tuple(sizes), one.dtype)


def _largest_action(
    ids: Sequence[str], parts: Sequence[specs.EnvironmentSpec]
) -> specs.DiscreteSpec:
    for name, part in zip(ids, parts, strict=True):
        if not isinstance(part.action, specs.DiscreteSpec):
            raise _different(ids[0], name, "actions", parts[0], part)
    return specs.DiscreteSpec(max(part.action.num_actions for part in parts))
