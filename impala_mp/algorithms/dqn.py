"""DQN (Mnih et al. 2015) with n-step or traced returns, double and rescaled values."""

from typing import Any

import torch

from impala_mp import types
from impala_mp.algorithms import (
    action_returns,
    actor_critic,
    base,
    losses,
    replay_correction,
    target_network,
    vtrace,
)
from impala_mp.networks import agent
from impala_mp.networks.distributions import categorical

METRICS = (
    "loss/td",
    "q/mean",
    "q/target_mean",
    "q/gap",
    "q/overestimation",
    "value/explained_variance",
)


class DQNAlgorithm:
    """Temporal-difference learning of action values towards a target network's.

    Q is the learner's network, Q' the target network, or Q itself where there is none
    (PQN: Gallici et al. 2024, arXiv 2407.04811). The greedy policy that is learned is
    that of Q (double: van Hasselt et al. 2016, arXiv 1509.06461) or of Q'. With
    V(x) = Q'(x, greedy(x)), the target of Q(x_t, a_t) is one of

        n_step   r_t + ... + gamma^n V(x_{t+n})
        lambda   Q(lambda) with off-policy corrections, traces of lambda
        peng     G_t = r_t + gamma ((1 - lambda) V(x_{t+1}) + lambda G_{t+1})
        retrace  Retrace(lambda), traces of lambda min(1, pi/mu), pi the greedy policy

    `peng` is PQN's. It has no correction: what follows an action that is not greedy
    counts, too.

    All actions of a player that waits are equal: the recorded one is learned, too.

    With hyperbolic rescaling, networks give values at the scale of h, and returns are
    computed between its inverse and h, as in R2D2 (Kapturowski et al. 2019).
    """

    metric_names: tuple[str, ...] = METRICS
    loss_name = METRICS[0]

    def __init__(
        self,
        settings: Any,
        critic: actor_critic.Critic,
        target: target_network.TargetNetwork | None,
    ) -> None:
        """`settings` is config.dqn."""
        self._settings, self._critic, self._target = settings, critic, target
        self._rescales = settings.rescaling == "hyperbolic"
        self.state = {} if target is None else {"target": target.flat}

    def references(
        self, batches: list[types.Trajectory], unroll: base.Unroll, live: base.Live
    ) -> list[agent.QOutput | tuple[()]]:
        """Returns the target network's outputs; () each without one."""
        if self._target is None:
            return [()] * len(batches)
        with self._target.in_place():
            return [unroll(batch) for batch in batches]

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: agent.QOutput | tuple[()],
        unroll: base.Unroll,
        live: base.Live,
        count: int,
    ) -> base.Loss:
        """Returns the loss of a micro-batch, with the arguments of `base.Algorithm`."""
        network = unroll(batch)
        learnable = base.learnable(batch)
        weights = learnable
        if sample is not None:
            weights = learnable * sample.weight
        action = batch.agent_output.action
        targets = self._targets(batch, network, reference or network, learnable)
        terms = self._terms(
            network,
            self._normalised(batch, self._values(network, action)),
            self._normalised(batch, targets),
        )
        total = losses.reduce(terms, weights, self._critic.loss.reduction, count)
        moments = self._moments(batch, targets, learnable)
        taken, targets = _of(network.q_values[:-1], action), self._mean(targets)
        errors = self._normalised(batch, targets - taken).detach()
        priorities = None
        if sample is not None:
            eta = self._critic.replay.priority_eta
            priorities = replay_correction.priorities(errors, learnable, eta)
        return base.Loss(
            total=total,
            metrics={
                self.loss_name: total.detach(),
                **self._metrics(batch, network, taken, targets, learnable, count),
            },
            elements={"q/taken": taken, "q/targets": targets, self.loss_name: terms},
            moments=moments,
            priorities=priorities,
        )

    @torch.no_grad()
    def _targets(
        self,
        batch: types.Trajectory,
        online: agent.QOutput,
        reference: agent.QOutput,
        learnable: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the targets of `_values` at the network's scale: [T, B, ...]."""
        settings, action = self._settings, batch.agent_output.action
        chooses = online if settings.double else reference
        greedy = chooses.q_values.argmax(-1)
        values = self._restored(self._values(reference, greedy))
        rewards, discounts = losses.rewards(batch, self._critic.loss)
        waits = base.waits(batch)
        if waits is not None:
            values = action_returns.until_decision(values, rewards, discounts, waits)
        if settings.returns == "n_step":
            returns = action_returns.n_step(
                discounts, rewards, values, learnable, settings.n_step
            )
        else:
            traces, expected = torch.full_like(rewards, settings.lambda_), values[:-1]
            if settings.returns != "peng":
                expected = self._restored(self._values(reference, action))
            if settings.returns == "retrace":
                # mu <= 1, so min(1, pi/mu) is 1 for the greedy action and else 0.
                traces = traces * (action == greedy[:-1])
            if waits is not None:
                expected = torch.where(waits > 0.0, values[:-1], expected)
                traces = torch.where(waits > 0.0, waits, traces)
            returns = action_returns.traced(
                discounts, rewards, values, expected, traces, learnable
            )
        return action_returns.rescale(returns) if self._rescales else returns

    def _restored(self, values: torch.Tensor) -> torch.Tensor:
        """Returns values in units of reward."""
        return action_returns.restore(values) if self._rescales else values

    def _values(self, output: agent.QOutput, action: torch.Tensor) -> torch.Tensor:
        """Returns the values of the actions of the first rows: [rows, B, ...]."""
        return _of(output.q_values[: len(action)], action)

    def _mean(self, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean of each of the targets: [T, B, ...] -> [T, B]."""
        return targets

    def _terms(
        self, network: agent.QOutput, values: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Returns the loss of each transition, [T, B], in PopArt's units."""
        return losses.value_loss(values, targets, self._critic.loss)

    def _normalised(
        self, batch: types.Trajectory, values: torch.Tensor
    ) -> torch.Tensor:
        """Divides values [T, B, ...] by PopArt's sigma, if there is PopArt."""
        if self._critic.popart is None:
            return values
        scale = self._critic.popart.scale_of(self._critic.task_of(batch))
        return values / scale.view(*scale.shape, *[1] * (values.dim() - 2))

    def _moments(
        self, batch: types.Trajectory, targets: torch.Tensor, learnable: torch.Tensor
    ) -> torch.Tensor | None:
        if self._critic.popart is None:
            return None
        return self._critic.popart.moments(
            targets, learnable, self._critic.task_of(batch)
        )

    @torch.no_grad()
    def _metrics(
        self,
        batch: types.Trajectory,
        network: agent.QOutput,
        taken: torch.Tensor,
        targets: torch.Tensor,
        learnable: torch.Tensor,
        count: int,
    ) -> dict[str, torch.Tensor]:
        """Statistics of a micro-batch, in units of reward; their sums are means."""
        share = taken.numel() / count
        taken, targets = self._restored(taken), self._restored(targets)
        returns, known = known_returns(
            *losses.rewards(batch, self._critic.loss), learnable
        )
        masks = torch.stack([learnable, known])
        masks = masks / masks.sum((1, 2), keepdim=True).clamp(min=1.0)

        def means(*tensors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (torch.stack(tensors) * mask).sum((1, 2))

        learned, over = masks
        gap = self._gap(network.q_values[:-1])
        mean, target, gap, error = means(
            taken, targets, gap, targets - taken, mask=learned
        )
        spread, unexplained = means(
            (targets - target).square(),
            (targets - taken - error).square(),
            mask=learned,
        )
        explained = 1.0 - unexplained / spread.clamp(min=1e-12)
        return {
            "q/mean": share * mean,
            "q/target_mean": share * target,
            "q/gap": share * gap,
            "q/overestimation": share * ((taken - returns) * over).sum(),
            "value/explained_variance": share * explained.clamp(min=-1.0),
        }

    def _gap(self, q_values: torch.Tensor) -> torch.Tensor:
        """Returns the best value minus the second; 0 for a single allowed action."""
        if q_values.shape[-1] == 1:
            return torch.zeros_like(q_values[..., 0])
        best, second = q_values.topk(2, -1).values.unbind(-1)
        gap = self._restored(best) - self._restored(second)
        return torch.where(second > 0.5 * categorical.MASKED, gap, 0.0)

    def after_update(self, updates: int) -> None:
        """Moves the target network, if its update is due; nothing else moves it."""
        if self._target is not None:
            self._target.update(updates)


def _of(q_values: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Returns the values of the actions: [..., A], [...] -> [...]."""
    return q_values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def known_returns(
    rewards: torch.Tensor, discounts: torch.Tensor, learnable: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns discounted returns to the end, and where they are known: [T, B] each.

    They are known where the episode terminates within the trajectory.
    """
    ends = learnable * (discounts == 0.0)
    returns, known = vtrace.discounted_sums(
        torch.cat([rewards * learnable, ends], 1),
        torch.cat([discounts * learnable, learnable - ends], 1),
    ).chunk(2, 1)
    return returns, known * learnable
