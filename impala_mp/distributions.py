"""Action distributions: the only code that knows what policy logits mean."""

from typing import Protocol

import torch

from impala_mp import specs


class ActionDistribution(Protocol):
    """Functions of policy logits [..., L] and actions [..., *action shape]."""

    num_logits: int  # L
    encoding_size: int  # features of `encode`

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """An action."""

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest action."""

    def log_prob(self, logits: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """log pi(a), of the joint action: [...]."""

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        """In nats: [...]."""

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        """KL(p || q) in nats: [...]."""

    def mix(
        self,
        logits: torch.Tensor,
        epsilon: float | torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Logits of (1 - epsilon) softmax(logits / temperature) + epsilon uniform.

        `epsilon` is one number, or float64 [...], one a row. Finite for finite logits;
        with epsilon 0 and temperature 1 the same tensor.
        """

    def encode(self, action: torch.Tensor) -> torch.Tensor:
        """Float features [..., encoding_size] of an action, for use as an input."""


class Categorical:
    """One of `num_actions`, by unnormalised log-probabilities."""

    def __init__(self, num_actions: int) -> None:
        self.num_logits = self.encoding_size = num_actions

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        # argmax(p / Exp(1)) is a draw from p: one kernel less than inverting the CDF,
        # and no host synchronisation.
        noise = torch.empty_like(logits).exponential_(generator=generator)
        return (logits - noise.log()).argmax(-1)

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(-1)

    def log_prob(self, logits: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        log_probs = torch.log_softmax(logits, -1)
        return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        log_probs = torch.log_softmax(logits, -1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        p, q = torch.log_softmax(p_logits, -1), torch.log_softmax(q_logits, -1)
        return (p.exp() * (p - q)).sum(-1)

    def mix(
        self,
        logits: torch.Tensor,
        epsilon: float | torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        if temperature != 1.0:
            logits = logits / temperature
        if isinstance(epsilon, float) and epsilon == 0.0:
            return logits
        share = torch.as_tensor(epsilon, dtype=torch.float64).unsqueeze(-1)
        # In logarithms: neither a policy that underflows nor the smallest epsilon of a
        # ladder gives an action the probability 0.
        kept, spread = (
            term.to(logits.device, logits.dtype)
            for term in (torch.log1p(-share), torch.log(share / self.num_logits))
        )
        return torch.logaddexp(kept + torch.log_softmax(logits, -1), spread)

    def encode(self, action: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(action, self.num_logits).float()


def from_spec(spec: specs.DiscreteSpec) -> ActionDistribution:
    """The distribution over the actions of `spec`."""
    return Categorical(spec.num_actions)
