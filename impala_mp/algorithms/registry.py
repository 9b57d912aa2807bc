"""Table of the algorithms by their names in `config.algorithm`."""

from typing import Any

from impala_mp.algorithms import (
    actor_critic,
    base,
    dqn,
    impact,
    impala,
    iqn,
    replay_correction,
    target_network,
)
from impala_mp.config import derived
from impala_mp.networks import agent, flat_parameters

_ALGORITHMS: dict[str, type[Any]] = {
    "vtrace": impala.VTraceAlgorithm,
    "impact": impact.ImpactAlgorithm,
    "dqn": dqn.DQNAlgorithm,
    "iqn": iqn.IQNAlgorithm,
}


def make(
    config: Any,
    policy: agent.Agent,
    online: flat_parameters.FlatParameters,
    gather: base.Gather = base.alone,
    num_ranks: int = 1,
) -> base.Algorithm:
    """Builds the algorithm that `config.algorithm` names.

    Args:
      online: the parameters of `policy`, which the learner changes in place.
      gather: from all of `num_ranks` learner ranks, each with a batch of `config`.
    """
    target = None
    if derived.has_target_network(config):
        target = target_network.TargetNetwork(config.target, online)
    critic = actor_critic.Critic(config, policy, num_ranks)
    if config.algorithm == "dqn":
        return dqn.DQNAlgorithm(config.dqn, critic, target)
    if config.algorithm == "iqn":
        return iqn.IQNAlgorithm(config.dqn, config.iqn.kappa, critic, target)
    if target is not None:
        return impact.ImpactAlgorithm(config.impact, critic, target, gather)
    return impala.VTraceAlgorithm(critic)


def metric_names(config: Any) -> tuple[str, ...]:
    """Returns the metrics of the algorithm, and of replay's part in its loss."""
    names: tuple[str, ...] = _ALGORITHMS[config.algorithm].metric_names
    if derived.learns_action_values(config):
        return names
    return (*names, *replay_correction.metric_names(config.replay))
