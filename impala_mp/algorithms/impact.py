"""IMPACT, also known as APPO (Luo et al. 2020, arXiv 1912.00167)."""

import math
from typing import Any

from impala_mp import types
from impala_mp.algorithms import actor_critic, base, losses, target_network
from impala_mp.networks import agent


class ImpactAlgorithm:
    """A surrogate clipped around a target network, which moves every few updates.

    pi is the learner's policy, mu the behaviour policy, pi' the target network's
    policy and V' its values. V-trace computes the advantages adv and the targets vs
    from the ratios pi'/mu and the values V'. The paper's ratio R (section 3) and its
    surrogate are, for each transition,

        R  = min(mu/pi', ratio_threshold) pi/mu = pi / max(pi', mu/ratio_threshold)
        pg = -min(R adv, clip(R, 1 - clip_range, 1 + clip_range) adv)

    The loss adds the baseline's loss (V towards vs), the entropy bonus, and kl_cost
    times KL(pi' || pi). On-policy, with pi' = mu, adv is the n-step advantage and R is
    pi/mu: PPO's surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7).
    """

    metric_names: tuple[str, ...] = (
        *actor_critic.LOSS_METRICS,
        "loss/kl",
        "impact/ratio_clipped",
        "impact/kl_target",
        *actor_critic.VTRACE_METRICS,  # the weights are pi'/mu
    )

    def __init__(
        self,
        settings: Any,
        critic: actor_critic.Critic,
        target: target_network.TargetNetwork,
    ) -> None:
        """`settings` is config.impact."""
        self._settings, self._critic, self._target = settings, critic, target
        self.state = {"target": target.flat}

    def reference(
        self, batch: types.Trajectory, unroll: base.Unroll
    ) -> agent.NetworkOutput:
        """Returns the target network's outputs, [T+1, B, ...]."""
        with self._target.in_place():
            output: agent.NetworkOutput = unroll(batch)
        return output

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: agent.NetworkOutput,
        unroll: base.Unroll,
        live: base.Live,
        count: int,
    ) -> base.Loss:
        """Returns the loss of a micro-batch, with the arguments of `base.Algorithm`."""
        distribution, behaviour = self._critic.distribution, batch.agent_output
        step = self._critic.begin(batch, sample, unroll(batch), live, count)
        target_logits = reference.policy_logits[:-1]
        log_pi, log_target, log_mu = (
            distribution.log_prob(logits, behaviour.action)
            for logits in (step.logits, target_logits, behaviour.policy_logits)
        )
        log_rhos = log_target - log_mu
        returns = step.returns(log_rhos, reference.baseline)
        advantages = step.normalised(returns.pg_advantages)
        # In logarithms: of a tiny mu the ratios would be 0 and infinite.
        limit = math.log(self._settings.ratio_threshold)
        ratios = ((log_mu - log_target).clamp(max=limit) + log_pi - log_mu).exp()
        kl = distribution.kl(target_logits, step.logits)
        clip_range = self._settings.clip_range
        terms = {
            "loss/policy_gradient": losses.surrogate_loss(
                ratios, advantages, clip_range
            ),
            "loss/baseline": step.baseline_loss(returns.vs),
            "loss/entropy": step.entropy_loss(),
            "loss/kl": self._settings.kl_cost * kl,
        }
        metrics = {
            "impact/ratio_clipped": step.mean(
                (ratios.detach() - 1.0).abs() > clip_range
            ),
            "impact/kl_target": step.mean(kl),
        }
        return step.finish(terms, log_rhos, returns, metrics)

    def after_update(self, updates: int) -> None:
        """Moves the target network, if its update is due; nothing else moves it."""
        self._target.update(updates)
