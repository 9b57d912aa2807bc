"""Actor-critic with V-trace (Espeholt et al. 2018, arXiv 1802.01561, section 4.2)."""

import torch

from impala_mp import types
from impala_mp.algorithms import actor_critic, base, losses


class VTraceAlgorithm:
    """Policy gradient and baseline towards V-trace's targets, and an entropy bonus.

    pi is the learner's policy, mu the behaviour policy, V the learner's values. vs and
    adv are V-trace's (vtrace.py). The loss of a batch is the sum over its learnable
    transitions t of

        -log pi(a_t|x_t) adv_t + baseline_cost (vs_t - V(x_t))^2 / 2
        - entropy_cost H(pi(.|x_t))

    With loss.reduction "mean" it is divided by T * B.
    """

    metric_names: tuple[str, ...] = (
        *actor_critic.LOSS_METRICS,
        *actor_critic.DIAGNOSTICS,
        *actor_critic.VTRACE_METRICS,
    )

    def __init__(self, critic: actor_critic.Critic) -> None:
        self._critic = critic
        self.state: dict[str, torch.Tensor] = {}

    def references(
        self, batches: list[types.Trajectory], unroll: base.Unroll, live: base.Live
    ) -> list[tuple[()]]:
        """Returns () for each: V-trace needs no other outputs than the learner's."""
        return [()] * len(batches)

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: tuple[()],
        unroll: base.Unroll,
        live: base.Live,
        count: int,
    ) -> base.Loss:
        """Returns the loss of a micro-batch, with the arguments of `base.Algorithm`."""
        network, behaviour = unroll(batch), batch.agent_output
        log_pi, log_mu = (
            self._critic.distribution.log_prob(logits, behaviour.action)
            for logits in (network.policy_logits[:-1], behaviour.policy_logits)
        )
        step = self._critic.begin(batch, sample, network, live, count)
        log_rhos = log_pi - log_mu
        returns = step.returns(log_rhos, network.baseline)
        advantages = step.normalised(returns.pg_advantages)
        terms = {
            "loss/policy_gradient": losses.policy_gradient_loss(log_pi, advantages),
            "loss/baseline": step.baseline_loss(returns.vs),
            "loss/entropy": step.entropy_loss(),
        }
        return step.finish(terms, log_rhos, returns)

    def after_update(self, updates: int) -> None:
        """Leaves everything as it is: there is no state beside the parameters."""
