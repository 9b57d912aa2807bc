"""Configs of single policies, where several policies play a game."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from impala_mp import errors
from impala_mp.config import base, fields

# Beginnings of the fields that a policy may have for itself.
_OWN = (
    *("algorithm", "batch_size", "max_policy_lag", "network.", "agent.", "loss."),
    *("optimizer.", "vtrace.", "impact.", "dqn.", "iqn.", "target.", "replay."),
    *("schedules.", "learner.passes"),
    *("actors.epsilon", "actors.temperature", "actors.ladder_over"),
)


def of_run(config: Any, num_players: Mapping[str, int]) -> list[Any]:
    """Returns the config of each policy: `config` itself for a single one.

    That of one of several has its share of total_agent_steps, of the environments of an
    actor and of batch_size, by its share of the players.

    Args:
      num_players: of each policy, by its name.

    Raises:
      BadInput: a field is of no policy, or not one that a policy may have for itself.
    """
    own = fields.flatten(config.policies)
    for path in own:
        _check(path, list(num_players))
    if len(num_players) == 1:
        return [config]
    every = sum(num_players.values())
    return [
        _of_policy(config, name, count / every) for name, count in num_players.items()
    ]


def _check(path: str, names: list[str]) -> None:
    name, _, field = path.partition(".")
    if names == [""]:
        raise errors.BadInput(
            f"policies.{path} has no effect with a single policy. Name several in"
            " config.environment.policies, or set config.environment.sharing."
        )
    if name not in names:
        raise errors.BadInput(
            f"policies.{path} names no policy of {', '.join(names)}."
            f"{fields.nearest(name, names)}"
        )
    if field not in base.BY_NAME:
        near = fields.nearest(field, list(base.BY_NAME))
        raise errors.BadInput(f"policies.{path}: there is no field {field!r}.{near}")
    if not field.startswith(_OWN):
        raise errors.BadInput(
            f"policies.{path} is the same for all policies. Set config.{field}."
        )


def _of_policy(config: Any, name: str, share: float) -> Any:
    found = config.copy_and_resolve_references()
    own = config.policies.get(name)
    found.total_agent_steps = math.ceil(config.total_agent_steps * share)
    found.actors.environments = round(config.actors.environments * share)
    found.batch_size = round(config.batch_size * share)
    with found.unlocked():
        found.policies = config_dict.ConfigDict()
    for field, value in (fields.flatten(own) if own else {}).items():
        try:
            found.update_from_flattened_dict({field: value})
        except (TypeError, ValueError) as error:
            kind = type(base.BY_NAME[field].default).__name__
            raise errors.BadInput(
                f"policies.{name}.{field} ({value!r}) must be of type {kind}. Set"
                f" config.policies.{name}.{field}."
            ) from error
    return found
