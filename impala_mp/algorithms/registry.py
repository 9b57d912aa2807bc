"""The one place where `config.algorithm` is looked up."""

from typing import Any

from impala_mp.algorithms import base, impact, impala, replay_correction, target_network
from impala_mp.networks import agent, flat_parameters

_ALGORITHMS: dict[str, type[Any]] = {
    "vtrace": impala.VTraceAlgorithm,
    "impact": impact.ImpactAlgorithm,
}


def make(
    config: Any, policy: agent.Agent, online: flat_parameters.FlatParameters
) -> base.Algorithm:
    """The algorithm that `config.algorithm` names.

    Args:
      online: the parameters of `policy`, which the learner changes in place.
    """
    owned = []
    if config.algorithm == "impact":
        owned.append(target_network.TargetNetwork(config.target, online))
    made: base.Algorithm = _ALGORITHMS[config.algorithm](config, policy, *owned)
    return made


def metric_names(name: str, replay: Any) -> tuple[str, ...]:
    """Returns the metrics of the algorithm `name`, and of `config.replay`."""
    names: tuple[str, ...] = _ALGORITHMS[name].metric_names
    return (*names, *replay_correction.metric_names(replay))
