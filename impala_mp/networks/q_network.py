"""Q-network: encoder, core, and a head of action values, plain or dueling."""

from typing import Any

import torch
from torch import nn

from impala_mp import types
from impala_mp.networks import cores, initialisers, network, popart
from impala_mp.networks.distributions import categorical


class DuelingHead(nn.Module):
    """Q(x, a) = V(x) + A(x, a) - mean of A(x, .).

    Wang et al. 2016, arXiv 1511.06581, equation 9, over all actions. The mean is also
    taken over actions that a mask forbids: a value never depends on the mask.
    """

    def __init__(self, size: int, num_actions: int) -> None:
        super().__init__()
        self.value = nn.Linear(size, 1)
        self.advantage = nn.Linear(size, num_actions)
        initialisers.orthogonal(self, 1.0)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[..., F] -> [..., A]."""
        advantage = self.advantage(features)
        centred = advantage - advantage.mean(-1, keepdim=True)
        values: torch.Tensor = self.value(features) + centred
        return values


class QNetwork(network.Network):
    """Network whose one head gives action values; the largest is the baseline.

    The head is called `baseline`, because it is what PopArt normalises.
    """

    def _make_heads(self, size: int, config: Any, num_tasks: int) -> None:
        num_actions = self._distribution.num_logits
        self.baseline = (
            DuelingHead(size, num_actions)
            if config.network.dueling
            else popart.value_head(size, num_tasks, self._with_popart, num_actions)
        )

    def act(
        self,
        time_step: types.TimeStep,
        last_action: network.LastAction | None,
        state: cores.CoreState,
    ) -> tuple[torch.Tensor, cores.CoreState]:
        """Maps [T, B, ...] to q_values and the core state."""
        q_values, _, state = self(time_step, last_action, state)
        return q_values, state

    def _heads(
        self,
        output: torch.Tensor,
        of_values: torch.Tensor,
        time_step: types.TimeStep,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps [T, B, F] to q_values [T, B, A], and the largest allowed, [T, B].

        Actions that are not allowed have the value MASKED.
        """
        q_values = self._masked(self._values(output, time_step), time_step)
        return q_values, q_values.amax(-1)


def greedy_logits(q_values: torch.Tensor) -> torch.Tensor:
    """Returns the logits of the greedy policy: [..., A].

    They are 0 for the first of the largest values and -100 for other allowed actions,
    whose probability of e^-100 is lost in float32 beside any epsilon that explores. An
    epsilon above 0 mixed into it gives the epsilon-greedy policy to 1.2e-6 nats.
    """
    allowed = q_values > 0.5 * categorical.MASKED
    best = q_values.argmax(-1, keepdim=True)
    logits = torch.where(allowed, -100.0, categorical.MASKED)
    return logits.scatter(-1, best, 0.0)
