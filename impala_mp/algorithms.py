"""The one place where `config.algorithm` is looked up."""

from typing import Any

from impala_mp import (
    agent,
    algorithm,
    impact_algorithm,
    off_policy,
    parameters,
    target_network,
    vtrace_algorithm,
)

_ALGORITHMS: dict[str, type[Any]] = {
    "vtrace": vtrace_algorithm.VTraceAlgorithm,
    "impact": impact_algorithm.ImpactAlgorithm,
}


def make(
    config: Any, policy: agent.Agent, online: parameters.FlatParameters
) -> algorithm.Algorithm:
    """The algorithm that `config.algorithm` names.

    Args:
      online: the parameters of `policy`, which the learner changes in place.
    """
    owned = []
    if config.algorithm == "impact":
        owned.append(target_network.TargetNetwork(config.target, online))
    made: algorithm.Algorithm = _ALGORITHMS[config.algorithm](config, policy, *owned)
    return made


def metric_names(config: Any) -> tuple[str, ...]:
    """Of the algorithm that `config.algorithm` names, and of replay."""
    names: tuple[str, ...] = _ALGORITHMS[config.algorithm].metric_names
    return (*names, *off_policy.metric_names(config))
