"""Actor-critic with V-trace (Espeholt et al. 2018, arXiv 1802.01561, section 4.2)."""

from typing import Any

import torch

from impala_mp import types
from impala_mp.algorithms import actor_critic, base, losses
from impala_mp.networks import agent


class VTraceAlgorithm:
    """Policy gradient and baseline towards V-trace's targets, and an entropy bonus."""

    metric_names: tuple[str, ...] = (
        *actor_critic.LOSS_METRICS,
        *actor_critic.VTRACE_METRICS,
    )

    def __init__(self, config: Any, policy: agent.Agent) -> None:
        self._reduction = config.loss.reduction
        self._distribution = policy.distribution
        self._critic = actor_critic.Critic(config, policy)
        self.state: dict[str, torch.Tensor] = {}

    def reference(self, batch: types.Trajectory, unroll: base.Unroll) -> None:
        """There is none."""

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: None,
        unroll: base.Unroll,
        live: base.Live,
        count: int,
    ) -> base.Loss:
        distribution, critic = self._distribution, self._critic
        behaviour = batch.agent_output
        network = unroll(batch)
        logits, values = network.policy_logits[:-1], network.baseline[:-1]
        log_probs = distribution.log_prob(logits, behaviour.action)
        behaviour_log_probs = distribution.log_prob(
            behaviour.policy_logits, behaviour.action
        )
        control = critic.control(batch, sample, logits, values, count)
        log_rhos = log_probs - behaviour_log_probs
        returns = critic.returns(
            batch, live, log_rhos, network.baseline, control.learnable
        )
        terms = {
            "loss/policy_gradient": losses.policy_gradient_loss(
                log_probs, critic.normalised(batch, returns.pg_advantages)
            ),
            "loss/baseline": critic.loss(batch, values, returns.vs),
            "loss/entropy": -live.entropy_cost * distribution.entropy(logits),
        }
        total, metrics = actor_critic.total(terms, control, self._reduction, count)
        with torch.no_grad():
            kl = distribution.kl(behaviour.policy_logits, logits) * control.learnable
        metrics |= actor_critic.vtrace_metrics(returns.rhos, kl, values, live, count)
        return base.Loss(
            total,
            metrics,
            actor_critic.elements(log_rhos, returns, terms, control),
            critic.moments(batch, returns.vs, control.learnable),
            critic.priorities(batch, returns, control, sample),
        )

    def after_update(self, updates: int) -> None:
        """Nothing is kept beside the parameters."""
