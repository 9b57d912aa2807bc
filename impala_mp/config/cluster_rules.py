"""Checks of a run with actor hosts."""

from typing import Any

from impala_mp import errors
from impala_mp.config import by_value, derived, fields

MUCH_LAG = 32  # updates; beyond, a run warns


def check(config: Any) -> None:
    """Refuses what actor hosts cannot do.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    hosts = config.cluster.hosts
    if not config.cluster.address:
        raise errors.BadInput(
            f"cluster.hosts ({hosts}) needs the address of a Ray cluster, and"
            " cluster.address is empty. Set config.cluster.address=auto, or"
            " config.cluster.hosts=0."
        )
    _check_parts(config)
    for name, value in fields.flatten(config).items():
        if by_value.is_in(value):
            raise errors.BadInput(
                f"cluster.hosts ({hosts}) cannot get code that is given by value, which"
                f" {name} is. Define it in a module that all nodes have, and set"
                f" config.{name} to module:name."
            )
    if config.health.min_hosts > hosts:
        raise errors.BadInput(
            f"health.min_hosts ({config.health.min_hosts}) must be at most"
            f" cluster.hosts ({hosts}). Set config.health.min_hosts."
        )


def _check_parts(config: Any) -> None:
    """Refuses other parts of a run that hosts do not work with."""
    hosts = config.cluster.hosts
    if config.runtime.mode != "processes" or config.inference.mode != "actor":
        raise errors.BadInput(
            f"cluster.hosts ({hosts}) needs actors that are processes and infer for"
            f" themselves, and runtime.mode is {config.runtime.mode} and inference.mode"
            f" is {config.inference.mode}. Set config.runtime.mode=processes and"
            " config.inference.mode=actor."
        )
    others = {
        "population.size": (config.population.size > 0, 0),
        "league.every": (derived.has_league(config), 0),
    }
    for name, (is_set, cure) in others.items():
        if is_set:
            raise errors.BadInput(
                f"cluster.hosts ({hosts}) and {name} do not go together yet. Set"
                f" config.{name}={cure}, or config.cluster.hosts=0."
            )


def expected_lag(config: Any, num_cores: int) -> float:
    """Returns the updates that full rings are ahead of the learner."""
    settings, actors = config.cluster, config.actors
    slots = derived.all_actors(config, num_cores) * actors.slots
    slots += settings.hosts * settings.slots
    return float(slots * actors.environments / derived.num_new(config))
