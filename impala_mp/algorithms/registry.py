"""Table of the algorithms by their names in `config.algorithm`."""

from typing import Any

from impala_mp.algorithms import (
    actor_critic,
    base,
    impact,
    impala,
    replay_correction,
    target_network,
)
from impala_mp.networks import agent, flat_parameters

_ALGORITHMS: dict[str, type[Any]] = {
    "vtrace": impala.VTraceAlgorithm,
    "impact": impact.ImpactAlgorithm,
}


def make(
    config: Any, policy: agent.Agent, online: flat_parameters.FlatParameters
) -> base.Algorithm:
    """Builds the algorithm that `config.algorithm` names.

    Args:
      online: the parameters of `policy`, which the learner changes in place.
    """
    critic = actor_critic.Critic(config, policy)
    if config.algorithm == "impact":
        target = target_network.TargetNetwork(config.target, online)
        return impact.ImpactAlgorithm(config.impact, critic, target)
    return impala.VTraceAlgorithm(critic)


def metric_names(name: str, replay: Any) -> tuple[str, ...]:
    """Returns the metrics of the algorithm `name`, and of `config.replay`."""
    names: tuple[str, ...] = _ALGORITHMS[name].metric_names
    return (*names, *replay_correction.metric_names(replay))
