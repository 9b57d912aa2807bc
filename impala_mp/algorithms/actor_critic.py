"""Parts that the actor-critic algorithms share: values, V-trace, the sum, metrics."""

import functools
from typing import Any

import torch

from impala_mp import types
from impala_mp.algorithms import base, losses, replay_correction, vtrace
from impala_mp.config import derived
from impala_mp.networks import agent, popart

LOSS_METRICS = ("loss/policy_gradient", "loss/baseline", "loss/entropy")
VTRACE_METRICS = (
    "vtrace/rho_mean",
    "vtrace/rho_clipped",
    "vtrace/c_clipped",
    "vtrace/effective_sample_size",
    "vtrace/kl",
)
DIAGNOSTICS = (
    "policy/entropy",
    "value/mean",
    "value/explained_variance",
    "advantage/mean",
    "advantage/std",
)


class Critic:
    """Settings of values, V-trace and replay; `begin` applies them to a micro-batch.

    Learners of action values use its settings, tasks and scale alone.
    """

    def __init__(self, config: Any, policy: agent.Agent, num_ranks: int = 1) -> None:
        """`config` has the batch of one of `num_ranks` learner ranks."""
        self.loss, self.vtrace, self.replay = config.loss, config.vtrace, config.replay
        self.distribution, self.network = policy.distribution, policy.network
        self.popart = popart.head(policy.network)
        self.num_tasks = len(derived.task_names(config.environment))
        # Replayed transitions of a whole batch, that of all ranks.
        replayed = derived.num_replayed(config) * num_ranks
        self.num_replayed = config.unroll_length * replayed

    def begin(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        network: agent.NetworkOutput,
        live: base.Live,
        count: int,
    ) -> "Step":
        """Starts the loss of a micro-batch; `count` is T * B of the whole batch.

        Args:
          sample: None without replay.
          network: the learner's outputs, which carry the gradient: [T+1, B, ...].
        """
        return Step(self, batch, sample, network, live, count)

    def returns(
        self,
        batch: types.Trajectory,
        live: base.Live,
        learnable: torch.Tensor,
        log_rhos: torch.Tensor,
        values: torch.Tensor,
    ) -> vtrace.VTraceReturns:
        """Computes V-trace's targets and advantages; the result has no gradient.

        The returned rhos are exp(log_rhos), also with `vtrace.correction` off, which
        computes targets and advantages as if all ratios were 1.

        Args:
          learnable: 1 where a transition is learned, else 0: [T, B].
          log_rhos: [T, B].
          values: V(x_0..x_T), [T+1, B].
        """
        correction, log_rhos = self.vtrace.correction, log_rhos.detach()
        rewards, discounts = losses.rewards(batch, self.loss)
        waits = base.waits(batch)
        returns = vtrace.from_importance_weights(
            log_rhos=log_rhos if correction else torch.zeros_like(log_rhos),
            discounts=discounts,
            rewards=rewards,
            values=values[:-1].detach(),
            bootstrap_value=values[-1].detach(),
            learnable=learnable,
            clip_rho_threshold=live.clip_rho_threshold,
            clip_pg_rho_threshold=live.clip_pg_rho_threshold,
            clip_c_threshold=live.clip_c_threshold,
            lambda_=self.vtrace.lambda_,
            waits=None if waits is None else waits * learnable,
        )
        if not correction:
            decides = learnable if waits is None else learnable * (1.0 - waits)
            returns = returns._replace(rhos=log_rhos.exp() * decides)
        return returns

    def task_of(self, batch: types.Trajectory) -> torch.Tensor | None:
        """Returns the tasks of the transitions, int64 [T, B]; None for a single one."""
        task: torch.Tensor | None = self.network.task_of(batch.time_step)
        return None if task is None else task[:-1]

    def by_task(self, batch: types.Trajectory, values: torch.Tensor) -> torch.Tensor:
        """Returns `values[task]` of each transition: [tasks] -> [T, B]."""
        task = self.task_of(batch)
        if task is None:
            return values.expand(batch.shape)
        return values[task]

    def moments(
        self, batch: types.Trajectory, advantages: torch.Tensor
    ) -> torch.Tensor:
        """Returns `popart.moments` of the advantages [T, B], where they decide."""
        decides, task = base.decides(batch), self.task_of(batch)
        return popart.moments(advantages, decides, task, self.num_tasks)


class Step:
    """The loss of one micro-batch: its mask, weights and units, and its sum.

    All tensors are [T, B, ...]. A method takes and returns [T, B] unless it names
    another shape.
    """

    logits: torch.Tensor  # of the learner's policy pi, [T, B, L]
    values: torch.Tensor  # V(x_0..x_{T-1}) under the learner's parameters
    learnable: torch.Tensor  # 1 where a transition is learned, else 0
    decides: torch.Tensor  # the same, and 0 where a player waits

    def __init__(
        self,
        critic: Critic,
        batch: types.Trajectory,
        sample: types.Sample | None,
        network: agent.NetworkOutput,
        live: base.Live,
        count: int,
    ) -> None:
        self._critic, self._batch, self._sample = critic, batch, sample
        self._live, self._count = live, count
        self.logits, self.values = network.policy_logits[:-1], network.baseline[:-1]
        self._task = critic.task_of(batch)
        head = critic.popart
        self._scale = None if head is None else head.scale_of(self._task)
        waits = base.waits(batch)
        self._acts = None if waits is None else 1.0 - waits
        self._replay = self._replay_control()
        self.learnable = self._replay.learnable
        self.decides = self.decided(self.learnable)
        self._share = self.values.numel() / count  # of the whole batch

    def decided(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sets a term of the policy to 0 where a player waits."""
        return tensor if self._acts is None else tensor * self._acts

    def _replay_control(self) -> replay_correction.Control:
        learnable = base.learnable(self._batch)
        if self._sample is None:
            return replay_correction.without_replay(learnable)
        recorded = self._batch.agent_output
        return replay_correction.control(
            learnable,
            self._sample,
            recorded.policy_logits,
            self.logits,
            self.normalised(self.values - recorded.baseline),
            self._critic.distribution,
            self._critic.replay,
            self._critic.num_replayed,
            self._acts,
        )

    def normalised(self, tensor: torch.Tensor) -> torch.Tensor:
        """Divides values or advantages by PopArt's sigma; without PopArt, does nothing.

        Each task has its own sigma (Hessel et al. 2019, arXiv 1809.04474).
        """
        return tensor if self._scale is None else tensor / self._scale

    def returns(
        self, log_rhos: torch.Tensor, values: torch.Tensor
    ) -> vtrace.VTraceReturns:
        """Returns `Critic.returns` of this micro-batch."""
        batch, live = self._batch, self._live
        return self._critic.returns(batch, live, self.learnable, log_rhos, values)

    def baseline_loss(self, vs: torch.Tensor) -> torch.Tensor:
        """baseline_cost times the error of V(x_t) from vs_t, in PopArt's units."""
        settings = self._critic.loss
        values, targets = self.normalised(self.values), self.normalised(vs)
        errors = losses.value_loss(values, targets, settings)
        cost: torch.Tensor = settings.baseline_cost * errors
        return cost

    @functools.cached_property
    def entropy(self) -> torch.Tensor:
        """H(pi(.|x_t)) in nats."""
        entropy: torch.Tensor = self._critic.distribution.entropy(self.logits)
        return entropy

    def entropy_loss(self) -> torch.Tensor:
        """-entropy_cost H(pi(.|x_t)): IMPALA, section 4.2."""
        return self.decided(-self._live.entropy_cost * self.entropy)

    @functools.cached_property
    def _weights(self) -> torch.Tensor:
        """Weights [T, B] of a mean over the decisions of this micro-batch."""
        return _shares(self.decides)

    @torch.no_grad()
    def means(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns means over the decisions; those of micro-batches add up.

        A micro-batch has the weight of its share of the batch.
        """
        stacked = torch.stack([each.float() for each in tensors.values()])
        found = self._share * (stacked * self._weights).sum((1, 2))
        return dict(zip(tensors, found.unbind(), strict=True))

    def finish(
        self,
        terms: dict[str, torch.Tensor],
        log_rhos: torch.Tensor,
        returns: vtrace.VTraceReturns,
        metrics: dict[str, torch.Tensor] | None = None,
    ) -> base.Loss:
        """Reduces the terms and adds them up with replay's; fills in the metrics.

        Args:
          terms: the algorithm's terms by metric name.
          metrics: further scalars of the algorithm, without a gradient.
        """
        settings, replay = self._critic.loss, self._replay
        weighted = ((terms, replay.weights), (replay.terms, replay.term_weights))
        reduced = torch.cat(
            [
                losses.reduce(
                    torch.stack(list(part.values())),
                    weights,
                    settings.reduction,
                    self._count,
                )
                for part, weights in weighted
                if part
            ]
        )
        names = (*terms, *replay.terms)
        return base.Loss(
            total=reduced.sum(),
            metrics={
                **dict(zip(names, reduced.detach(), strict=True)),
                **replay.metrics,
                **(metrics or {}),
                **self._vtrace_metrics(returns.rhos),
                **self._diagnostics(returns),
            },
            elements={
                "vtrace/log_rhos": log_rhos,
                "vtrace/deltas": returns.deltas,
                "vtrace/vs": returns.vs,
                "vtrace/pg_advantages": returns.pg_advantages,
                **terms,
                **replay.terms,
            },
            moments=self._moments(returns.vs),
            priorities=self._priorities(returns.deltas),
        )

    @torch.no_grad()
    def _vtrace_metrics(self, rhos: torch.Tensor) -> dict[str, torch.Tensor]:
        """Statistics of the importance weights, over the decisions.

        A learned transition that is off-policy has a KL(mu || pi) above 0 nats.
        """
        live, squares = self._live, "vtrace/effective_sample_size"
        recorded = self._batch.agent_output.policy_logits
        found = self.means(
            {
                "vtrace/rho_mean": rhos,
                "vtrace/rho_clipped": rhos > live.clip_rho_threshold,
                "vtrace/c_clipped": rhos > live.clip_c_threshold,
                squares: rhos.square(),
                "vtrace/kl": self._critic.distribution.kl(recorded, self.logits),
            }
        )
        total = found["vtrace/rho_mean"].square()
        return found | {squares: total / found[squares].clamp(min=1e-12)}

    @torch.no_grad()
    def _diagnostics(self, returns: vtrace.VTraceReturns) -> dict[str, torch.Tensor]:
        """Statistics of policy, values and advantages, in units of reward and nats.

        Variances are those of a micro-batch, and the metric is their mean.
        """
        share, decided = self._share, self._weights
        learned = decided if self._acts is None else _shares(self.learnable)
        vs, values = returns.vs, self.values
        tensors = torch.stack(
            [returns.pg_advantages, self.entropy, values, vs, vs - values]
        )
        weights = torch.stack([decided, decided, learned, learned, learned])
        means = (tensors * weights).sum((1, 2))
        squares = (tensors - means[:, None, None]).square()
        spread, _, _, varied, unexplained = (squares * weights).sum((1, 2)).unbind()
        explained = (1.0 - unexplained / varied.clamp(min=1e-12)).clamp(min=-1.0)
        advantage, entropy, value, *_ = means.unbind()
        return {
            "policy/entropy": share * entropy,
            "value/mean": share * value,
            "value/explained_variance": share * explained,
            "advantage/mean": share * advantage,
            "advantage/std": share * spread.sqrt(),
        }

    def _moments(self, targets: torch.Tensor) -> torch.Tensor | None:
        """Moments of the targets for PopArt, [tasks, 3]; None without PopArt."""
        if self._critic.popart is None:
            return None
        return self._critic.popart.moments(targets, self.learnable, self._task)

    def _priorities(self, deltas: torch.Tensor) -> torch.Tensor | None:
        """Priorities [B] for the replay; None without replay."""
        if self._sample is None:
            return None
        eta = self._critic.replay.priority_eta
        deltas = self.normalised(deltas)
        return replay_correction.priorities(deltas, self.learnable, eta)


def _shares(mask: torch.Tensor) -> torch.Tensor:
    """Divides 1 among the elements of a mask, 0 or 1; all are 0 without any."""
    return mask / mask.sum().clamp(min=1.0)
