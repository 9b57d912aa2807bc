"""IMPACT, also known as APPO (Luo et al. 2020, arXiv 1912.00167)."""

import math
from typing import Any, NamedTuple

import torch

from impala_mp import types
from impala_mp.algorithms import actor_critic, base, losses, target_network, vtrace
from impala_mp.networks import agent

_MIN_SCALE = 1e-8  # advantages that are all 0 stay 0
_MIN_SHARE = 1e-10  # of their mean square that is at least left as variance


class Reference(NamedTuple):
    """Tensors that all passes over a micro-batch share: [T, B], but where noted.

    Without replay they have the advantages and targets. With replay each pass computes
    them: its trust region decides by the learner's policy where traces end.
    """

    policy_logits: torch.Tensor  # of the target network, [T, B, L]
    log_target: torch.Tensor  # log pi'(a_t|x_t)
    log_mu: torch.Tensor  # log mu(a_t|x_t)
    returns: vtrace.VTraceReturns | tuple[()]
    values: types.Nest  # V' of the target network, [T+1, B]; () where returns are there
    # Unit of the advantages in the whole batch, by the task of each; (): PopArt's.
    mean: types.Nest = ()
    scale: types.Nest = ()


class ImpactAlgorithm:
    """A surrogate clipped around a target network, which moves every few updates.

    pi is the learner's policy, mu the behaviour policy, pi' the target network's
    policy and V' its values. V-trace computes the advantages adv and the targets vs
    from the ratios pi'/mu and the values V'. The paper's ratio R (section 3) and its
    surrogate are, for each transition,

        R  = min(mu/pi', ratio_threshold) pi/mu = pi / max(pi', mu/ratio_threshold)
        pg = -min(R adv, clip(R, 1 - clip_range, 1 + clip_range) adv)

    With normalise_advantages, adv is divided by the root mean square of those of its
    task in the batch. One learning rate, entropy cost and KL cost then fit rewards of
    any scale and density. An action that is as good as V' keeps its probability, unless
    centre_advantages subtracts the mean before. While V' lags behind a policy that
    improves, the mean is above 0, and several passes make every action that was taken
    more likely: normals become narrow.

    The loss adds the baseline's loss (V towards vs), the entropy bonus, and kl_cost
    times KL(pi' || pi). On-policy, with pi' = mu, adv is the n-step advantage and R is
    pi/mu: PPO's surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7).
    """

    metric_names: tuple[str, ...] = (
        *actor_critic.LOSS_METRICS,
        "loss/kl",
        "impact/ratio_clipped",
        "impact/kl_target",
        *actor_critic.DIAGNOSTICS,
        *actor_critic.VTRACE_METRICS,  # the weights are pi'/mu
    )

    def __init__(
        self,
        settings: Any,
        critic: actor_critic.Critic,
        target: target_network.TargetNetwork,
        gather: base.Gather = base.alone,
    ) -> None:
        """`settings` is config.impact."""
        self._settings, self._critic, self._target = settings, critic, target
        self._gather = gather
        self.state = {"target": target.flat}

    def references(
        self, batches: list[types.Trajectory], unroll: base.Unroll, live: base.Live
    ) -> list[Reference]:
        """Returns what depends on the target network, and the advantages' unit."""
        found, moments, normalise = [], [], self._settings.normalise_advantages
        for batch in batches:
            with self._target.in_place():
                output: agent.NetworkOutput = unroll(batch)
            logits, values = output.policy_logits[:-1], output.baseline
            log_target, log_mu = (
                self._critic.distribution.log_prob(each, batch.agent_output.action)
                for each in (logits, batch.agent_output.policy_logits)
            )
            mask, log_rhos = base.learnable(batch), log_target - log_mu
            returns = self._critic.returns(batch, live, mask, log_rhos, values)
            if normalise:
                moments.append(self._critic.moments(batch, returns.pg_advantages))
            kept = ((), values) if self._critic.num_replayed else (returns, ())
            found.append(Reference(logits, log_target, log_mu, *kept))
        if not normalise:
            return found
        whole = self._gather(torch.stack(moments).sum(0)).sum(0)
        count, total, squares = whole.unbind(-1)
        count = count.clamp(min=1.0)
        mean = total / count * float(self._settings.centre_advantages)
        squares = squares / count
        # Where all are equal, rounding errors of float32 are the deviation.
        scale = (squares - mean.square()).maximum(_MIN_SHARE * squares).sqrt()
        units = mean.float(), scale.clamp(min=_MIN_SCALE).float()
        return [
            each._replace(
                mean=self._critic.by_task(batch, units[0]),
                scale=self._critic.by_task(batch, units[1]),
            )
            for batch, each in zip(batches, found, strict=True)
        ]

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: Reference,
        unroll: base.Unroll,
        live: base.Live,
        count: int,
    ) -> base.Loss:
        """Returns the loss of a micro-batch, with the arguments of `base.Algorithm`."""
        distribution = self._critic.distribution
        step = self._critic.begin(batch, sample, unroll(batch), live, count)
        log_pi = distribution.log_prob(step.logits, batch.agent_output.action)
        log_target, log_mu = reference.log_target, reference.log_mu
        log_rhos = log_target - log_mu
        returns = reference.returns or step.returns(log_rhos, reference.values)
        if isinstance(reference.scale, tuple):
            advantages = step.normalised(returns.pg_advantages)
        else:
            centred = returns.pg_advantages - reference.mean
            advantages = step.decided(centred / reference.scale)
        # In logarithms: of a tiny mu the ratios would be 0 and infinite.
        limit = math.log(self._settings.ratio_threshold)
        ratios = ((log_mu - log_target).clamp(max=limit) + log_pi - log_mu).exp()
        kl = distribution.kl(reference.policy_logits, step.logits)
        clip_range = self._settings.clip_range
        terms = {
            "loss/policy_gradient": losses.surrogate_loss(
                ratios, advantages, clip_range
            ),
            "loss/baseline": step.baseline_loss(returns.vs),
            "loss/entropy": step.entropy_loss(),
            "loss/kl": self._settings.kl_cost * step.decided(kl),
        }
        outside = (ratios.detach() - 1.0).abs() > clip_range
        metrics = step.means({"impact/ratio_clipped": outside, "impact/kl_target": kl})
        return step.finish(terms, log_rhos, returns, metrics)

    def after_update(self, updates: int) -> None:
        """Moves the target network, if its update is due; nothing else moves it."""
        self._target.update(updates)
