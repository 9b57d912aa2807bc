"""Number of processes that learn several policies: its checks, and what 0 means.

Policy k is learned by process k modulo their number.
"""

from collections.abc import Mapping
from typing import Any

from impala_mp import errors


def check(config: Any) -> None:
    """Refuses other parts of a run that learn in one process.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    count = config.learner.processes
    if count == 1:
        return
    reason = ""
    if config.runtime.mode == "lockstep":
        reason = "runtime.mode (lockstep) has one process"
    elif config.learner.ranks > 1:
        reason = f"learner.ranks ({config.learner.ranks}) learn one policy together"
    elif config.population.size:
        reason = (
            f"population.size ({config.population.size}) has members that copy each"
            " other within one process"
        )
    if reason:
        raise errors.BadInput(
            f"{reason}, so it does not go with learner.processes ({count}). Set"
            " config.learner.processes=1."
        )


def resolve(config: Any, num_policies: int) -> None:
    """Replaces 0, one a policy, by their number.

    Raises:
      BadInput: there are more processes than policies.
    """
    count = config.learner.processes
    if count > num_policies:
        what = (
            f"{num_policies} policies play" if num_policies > 1 else "one policy acts"
        )
        raise errors.BadInput(
            f"learner.processes ({count}) must be at most the number of policies, and"
            f" {what} here. Set config.learner.processes to {num_policies}, or 0 for"
            " one a policy."
        )
    config.learner.processes = count or num_policies


def check_devices(configs: Mapping[str, Any]) -> None:
    """Refuses two devices in one process.

    Args:
      configs: of the policies, by their names, in order.

    Raises:
      BadInput: with the policies and their devices.
    """
    first: dict[int, str] = {}
    for number, (name, config) in enumerate(configs.items()):
        one = first.setdefault(number % config.learner.processes, name)
        devices = configs[one].learner.device, config.learner.device
        if len({"cuda:0" if each == "cuda" else each for each in devices}) > 1:
            raise errors.BadInput(
                f"policies {one!r} and {name!r} are learned by one process, and"
                f" learner.device is {devices[0]!r} for one and {devices[1]!r} for the"
                f" other. Set config.policies.{name}.learner.device={devices[0]}, or"
                " more config.learner.processes."
            )
