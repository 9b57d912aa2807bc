"""IMPACT, also known as APPO (Luo et al. 2020, arXiv 1912.00167)."""

import math
from typing import Any

import torch

from impala_mp import types
from impala_mp.algorithms import actor_critic, base, losses, target_network
from impala_mp.networks import agent


class ImpactAlgorithm:
    """A surrogate clipped around a target network, which moves every few updates.

    pi is the learner's policy, mu the behaviour policy, pi' the target network's; V'
    its values. The advantages adv and the targets vs are V-trace's, with pi'/mu for
    its ratios and V' for its values. The paper's ratio (section 3), and what becomes
    of it in PPO's surrogate:

        R  = min(mu/pi', ratio_threshold) pi/mu = pi / max(pi', mu/ratio_threshold)
        pg = -sum min(R adv, clip(R, 1 - clip_range, 1 + clip_range) adv)

    to which come the baseline's loss (V towards vs), the entropy bonus, and kl_cost
    times KL(pi' || pi). On-policy, with pi' = mu, adv is the n-step advantage, and R
    is pi/mu: PPO's surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7).
    """

    metric_names: tuple[str, ...] = (
        *actor_critic.LOSS_METRICS,
        "loss/kl",
        "impact/ratio_clipped",
        "impact/kl_target",
        *actor_critic.VTRACE_METRICS,  # the weights are pi'/mu
    )

    def __init__(
        self, config: Any, policy: agent.Agent, target: target_network.TargetNetwork
    ) -> None:
        self._settings = config.impact
        self._reduction = config.loss.reduction
        self._distribution = policy.distribution
        self._critic = actor_critic.Critic(config, policy)
        self._target = target
        self.state = {"target": target.flat}

    def reference(
        self, batch: types.Trajectory, unroll: base.Unroll
    ) -> agent.NetworkOutput:
        """The target network's outputs."""
        with self._target.in_place():
            return unroll(batch)

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: agent.NetworkOutput,
        unroll: base.Unroll,
        live: base.Live,
        count: int,
    ) -> base.Loss:
        distribution, critic = self._distribution, self._critic
        behaviour = batch.agent_output
        network = unroll(batch)
        logits, values = network.policy_logits[:-1], network.baseline[:-1]
        target_logits = reference.policy_logits[:-1]
        control = critic.control(batch, sample, logits, values, count)
        log_probs, target_log_probs, behaviour_log_probs = (
            distribution.log_prob(each, behaviour.action)
            for each in (logits, target_logits, behaviour.policy_logits)
        )
        log_rhos = target_log_probs - behaviour_log_probs
        returns = critic.returns(
            batch, live, log_rhos, reference.baseline, control.learnable
        )
        # In logs: of a tiny mu the ratios would be 0 and infinite.
        limit = math.log(self._settings.ratio_threshold)
        log_weights = (behaviour_log_probs - target_log_probs).clamp(max=limit)
        ratios = (log_weights + log_probs - behaviour_log_probs).exp()
        kl = distribution.kl(target_logits, logits)
        terms = {
            "loss/policy_gradient": losses.surrogate_loss(
                ratios,
                critic.normalised(batch, returns.pg_advantages),
                self._settings.clip_range,
            ),
            "loss/baseline": critic.loss(batch, values, returns.vs),
            "loss/entropy": -live.entropy_cost * distribution.entropy(logits),
            "loss/kl": self._settings.kl_cost * kl,
        }
        total, metrics = actor_critic.total(terms, control, self._reduction, count)
        with torch.no_grad():
            clipped = (ratios - 1.0).abs() > self._settings.clip_range
            metrics["impact/ratio_clipped"] = (
                clipped * control.learnable
            ).sum() / count
            metrics["impact/kl_target"] = (kl * control.learnable).sum() / count
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
        """The one place where the target network moves."""
        self._target.update(updates)
