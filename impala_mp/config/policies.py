"""Configs of single policies, where several policies play a game."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from impala_mp import errors
from impala_mp.config import base, effects, fields

# Beginnings of the fields that a policy may have for itself.
_OWN = (
    *("algorithm", "batch_size", "max_policy_lag", "network.", "agent.", "loss."),
    *("optimizer.", "vtrace.", "impact.", "dqn.", "iqn.", "target.", "replay."),
    *("schedules.", "learner.passes", "learner.minibatches"),
    *("learner.device", "learner.cuda_graph"),
    *("actors.epsilon", "actors.temperature", "actors.ladder_over"),
)


def of_run(config: Any, num_players: Mapping[str, int]) -> list[Any]:
    """Returns the config of each policy: `config` itself for a single one.

    That of one of several has its share of total_agent_steps, of the environments of an
    actor and of batch_size, by its share of the players. That of a population's member
    has its share of total_agent_steps and of the actors.

    Args:
      num_players: of each policy, by its name.

    Raises:
      BadInput: a field is of no policy, or not one that a policy may have for itself.
    """
    if config.population.size:
        return [_of_member(config) for _ in num_players]
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
    if field not in base.BY_NAME and not _open_field(field):
        near = fields.nearest(field, list(base.BY_NAME))
        raise errors.BadInput(f"policies.{path}: there is no field {field!r}.{near}")
    if not field.startswith(_OWN):
        raise errors.BadInput(
            f"policies.{path} is the same for all policies. Set config.{field}."
        )


def _open_field(path: str) -> str:
    """Returns the field that takes any name and has `path` in it, or ""."""
    return next(
        (
            field.name
            for field in base.FIELDS
            if isinstance(field.default, dict) and path.startswith(f"{field.name}.")
        ),
        "",
    )


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Names the policy in a refusal of its config.

    Raises:
      BadInput: the refusal, with the name.
    """
    try:
        yield
    except errors.BadInput as error:
        raise errors.BadInput(
            f"policy {name!r}: {error} Its own fields: config.policies.{name}."
        ) from error


def check_name(name: str) -> None:
    """Refuses names of policies that a config has for itself.

    Raises:
      BadInput: with the name.
    """
    if hasattr(config_dict.ConfigDict, name) or name in ("min", "max"):
        raise errors.BadInput(
            f"a policy cannot be called {name!r}, which has a meaning already. Rename"
            " it in config.environment.policies."
        )


def _of_member(config: Any) -> Any:
    found, size = config.copy_and_resolve_references(), config.population.size
    found.total_agent_steps = math.ceil(config.total_agent_steps / size)
    found.actors.count = config.actors.count // size
    found.population.size = 0  # it is not one itself
    effects.reset(found)
    return found


def _of_policy(config: Any, name: str, share: float) -> Any:
    found = config.copy_and_resolve_references()
    own = fields.flatten(config.policies.get(name) or config_dict.ConfigDict())
    if own.get("batch_size") == 0:
        raise errors.BadInput(
            f"policies.{name}.batch_size (0) cannot be automatic: its share of"
            " batch_size is. Set it to a number, or leave it out."
        )
    found.total_agent_steps = math.ceil(config.total_agent_steps * share)
    found.actors.environments = round(config.actors.environments * share)
    found.batch_size = round(config.batch_size * share)
    with found.unlocked():
        found.policies = config_dict.ConfigDict()
        for field, value in own.items():
            try:
                if group := _open_field(field):
                    fields.get(found, group)[field.removeprefix(f"{group}.")] = value
                else:
                    found.update_from_flattened_dict({field: value})
            except (TypeError, ValueError) as error:
                kind = type(fields.get(config, field)).__name__
                raise errors.BadInput(
                    f"policies.{name}.{field} ({value!r}) must be of type {kind}. Set"
                    f" config.policies.{name}.{field}."
                ) from error
    # Of the run's settings, those that this policy's algorithm does not read.
    effects.reset(found, kept=own)
    return found
