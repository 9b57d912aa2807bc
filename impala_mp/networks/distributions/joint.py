"""Joint distributions over Tuples, Dicts and arrays of actions."""

from collections.abc import Iterable

import torch

from impala_mp import nest, specs, types
from impala_mp.networks.distributions import base, categorical, gaussian


class Joint:
    """Independent parts in a Tuple or Dict, with concatenated logits."""

    def __init__(self, parts: types.Nest) -> None:
        """Takes a nest of distributions."""
        self._structure = parts
        named = list(nest.flatten_with_path(parts))
        self._names = [path for path, _ in named]
        self._parts: list[base.ActionDistribution] = [part for _, part in named]
        self._sizes = [part.num_logits for part in self._parts]
        self.num_logits = sum(self._sizes)
        self.encoding_size = sum(part.encoding_size for part in self._parts)
        self.free = tuple(free for part in self._parts for free in part.free)

    def _each(
        self, logits: torch.Tensor
    ) -> Iterable[tuple[base.ActionDistribution, torch.Tensor]]:
        return zip(self._parts, logits.split(self._sizes, -1), strict=True)

    def _leaves(self, action: types.Nest) -> list[torch.Tensor]:
        """Returns the parts of an action, in order."""
        return nest.flatten(action)

    def _gather(self, leaves: Iterable[torch.Tensor]) -> types.Nest:
        upcoming = iter(leaves)
        return nest.map_structure(lambda part: next(upcoming), self._structure)

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> types.Nest:
        return self._gather(p.sample(own, generator) for p, own in self._each(logits))

    def mode(self, logits: torch.Tensor) -> types.Nest:
        return self._gather(part.mode(own) for part, own in self._each(logits))

    def log_prob(self, logits: torch.Tensor, action: types.Nest) -> torch.Tensor:
        return _sum(
            part.log_prob(own, leaf)
            for (part, own), leaf in zip(
                self._each(logits), self._leaves(action), strict=True
            )
        )

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        return _sum(part.entropy(own) for part, own in self._each(logits))

    def kl(self, p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
        others = q_logits.split(self._sizes, -1)
        return _sum(
            part.kl(own, other)
            for (part, own), other in zip(self._each(p_logits), others, strict=True)
        )

    def mix(
        self,
        logits: torch.Tensor,
        epsilon: float | torch.Tensor,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        parts = [p.mix(own, epsilon, temperature) for p, own in self._each(logits)]
        return torch.cat(parts, -1)

    def normalise(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([p.normalise(own) for p, own in self._each(logits)], -1)

    def encode(self, action: types.Nest) -> torch.Tensor:
        leaves = zip(self._parts, self._leaves(action), strict=True)
        return torch.cat([part.encode(leaf) for part, leaf in leaves], -1)

    def describe(self, logits: torch.Tensor) -> list[base.Element]:
        return [
            element._replace(name=f"{name}{element.name}")
            for name, (part, own) in zip(self._names, self._each(logits), strict=True)
            for element in part.describe(own)
        ]


class MultiCategorical(Joint):
    """One categorical per element of an array, with concatenated logits."""

    def __init__(self, spec: specs.MultiDiscreteSpec) -> None:
        sizes = zip(spec.num_actions, spec.start, strict=True)
        super().__init__([categorical.Categorical(*each) for each in sizes])
        self._shape = spec.shape
        self._names = base.element_names(spec.shape)

    def _leaves(self, action: torch.Tensor) -> list[torch.Tensor]:
        return list(base.flat(action, self._shape).unbind(-1))

    def _gather(self, leaves: Iterable[torch.Tensor]) -> torch.Tensor:
        return base.unflat(torch.stack(list(leaves), -1), self._shape)


def _sum(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(terms)).sum(0)


def from_spec(spec: specs.ActionSpec) -> base.ActionDistribution:
    """Returns the distribution over the actions of `spec`."""
    made: base.ActionDistribution
    if isinstance(spec, (tuple, dict)):
        return Joint(nest.map_structure(from_spec, spec))
    if isinstance(spec, specs.DiscreteSpec):
        made = categorical.Categorical(spec.num_actions, spec.start)
    elif isinstance(spec, specs.MultiDiscreteSpec):
        made = MultiCategorical(spec)
    elif isinstance(spec, specs.MultiBinarySpec):
        made = categorical.Bernoulli(spec)
    else:
        made = gaussian.Gaussian(spec)
    return made
