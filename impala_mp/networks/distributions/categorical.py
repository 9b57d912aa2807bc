"""Distributions over a finite number of actions: categorical and Bernoulli."""

import math

import torch
from torch.nn import functional

from impala_mp import specs
from impala_mp.networks import activations
from impala_mp.networks.distributions import base

MASKED = -1e9  # the logit of an action that is not allowed: its probability is 0.0


def masked(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Gives actions that are not `allowed`, bool [..., L], probability 0."""
    return torch.where(allowed, logits, MASKED)


def _mixture_terms(
    epsilon: float | torch.Tensor, logits: torch.Tensor, count: float | torch.Tensor
) -> list[torch.Tensor]:
    """Returns log(1 - epsilon) and log(epsilon / count): [..., 1], or [1].

    Logarithms keep every probability above 0, even if the policy underflows or epsilon
    is the smallest of a ladder. A tensor on the logits' device waits for nothing, and
    neither does a number.
    """
    if not isinstance(epsilon, torch.Tensor):
        epsilon = logits.new_full((), epsilon, dtype=torch.float64)
    share = epsilon.to(logits.device, torch.float64).unsqueeze(-1)
    kept, spread = torch.log1p(-share), torch.log(share)
    many = count.double().log() if isinstance(count, torch.Tensor) else math.log(count)
    return [term.to(logits.dtype) for term in (kept, spread - many)]


class Categorical:
    """One of `num_actions` actions, by unnormalised log-probabilities."""

    def __init__(self, num_actions: int, start: int = 0) -> None:
        self.num_logits = self.encoding_size = num_actions
        self.free = (False,) * num_actions
        self._start = start

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
        log_probs = activations.log_softmax(logits)
        return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        log_probs = activations.log_softmax(logits)
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        p, q = activations.log_softmax(p_logits), activations.log_softmax(q_logits)
        return (p.exp() * (p - q)).sum(-1)

    def mix(
        self,
        logits: torch.Tensor,
        epsilon: float | torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        nothing = isinstance(epsilon, float) and epsilon == 0.0
        if nothing and temperature == 1.0:
            return logits
        allowed = logits > 0.5 * MASKED
        if temperature != 1.0:
            logits = torch.where(allowed, logits / temperature, MASKED)
        if nothing:
            return logits
        count = allowed.sum(-1, keepdim=True).clamp(min=1)
        kept, spread = _mixture_terms(epsilon, logits, count)
        mixed = torch.logaddexp(kept + activations.log_softmax(logits), spread)
        return torch.where(allowed, mixed, MASKED)

    def normalise(self, logits: torch.Tensor) -> torch.Tensor:
        return activations.log_softmax(logits).clamp(min=0.5 * MASKED)

    def encode(self, action: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(action, self.num_logits).float()

    def describe(self, logits: torch.Tensor) -> list[base.Element]:
        labels = tuple(str(self._start + i) for i in range(self.num_logits))
        numbers = tuple(torch.softmax(logits, -1).tolist())
        return [base.Element("", labels, numbers, are_probabilities=True)]


class Bernoulli:
    """Independent binary elements, by log-odds."""

    def __init__(self, spec: specs.MultiBinarySpec) -> None:
        self._shape = spec.shape
        self.num_logits = self.encoding_size = math.prod(spec.shape)
        self.free = (False,) * self.num_logits

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        chance = torch.empty_like(logits).uniform_(generator=generator)
        return base.unflat((chance < torch.sigmoid(logits)).to(torch.int8), self._shape)

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        return base.unflat((logits > 0.0).to(torch.int8), self._shape)

    def log_prob(self, logits: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        signs = 2.0 * self.encode(action) - 1.0
        return functional.logsigmoid(signs * logits).sum(-1)

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        return -self._expected(logits, logits).sum(-1)

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        own = self._expected(p_logits, p_logits)
        return (own - self._expected(p_logits, q_logits)).sum(-1)

    @staticmethod
    def _expected(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        """Returns E_p[log q] per element."""
        p = torch.sigmoid(p_logits)
        yes, no = functional.logsigmoid(q_logits), functional.logsigmoid(-q_logits)
        return p * yes + (1.0 - p) * no

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
        kept, spread = _mixture_terms(epsilon, logits, 2.0)
        yes, no = (
            torch.logaddexp(kept + functional.logsigmoid(each), spread)
            for each in (logits, -logits)
        )
        return yes - no

    def normalise(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def encode(self, action: torch.Tensor) -> torch.Tensor:
        return base.flat(action, self._shape).float()

    def describe(self, logits: torch.Tensor) -> list[base.Element]:
        """Describes each element by its probability of 1."""
        pairs = zip(
            base.element_names(self._shape), logits.sigmoid().tolist(), strict=True
        )
        return [base.Element(name, ("1",), (p,), True) for name, p in pairs]
