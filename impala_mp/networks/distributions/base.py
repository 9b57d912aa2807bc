"""Action distributions: the only code that knows what policy logits mean."""

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch

from impala_mp import errors, nest, specs, types


class Element(NamedTuple):
    """What a distribution says of one element of an action."""

    name: str  # within the action: "", "[1, 0]" or "arm/0[2]"
    labels: tuple[str, ...]  # of the numbers
    numbers: tuple[float, ...]
    are_probabilities: bool

    @property
    def text(self) -> str:
        """`arm/0[2]: mean 0.31, deviation 1.04`."""
        pairs = zip(self.labels, self.numbers, strict=True)
        said = ", ".join(f"{label} {number:.2f}" for label, number in pairs)
        return f"{self.name}: {said}" if self.name else said


def element_names(shape: tuple[int, ...]) -> list[str]:
    """Of each element of an array; "" if it is but one number."""
    return [str(list(index)) for index in np.ndindex(shape)] if shape else [""]


def flat(array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., *shape] -> [..., n]."""
    leading = array.shape[: array.dim() - len(shape)]
    return array.reshape(*leading, math.prod(shape))


def unflat(vector: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[..., n] -> [..., *shape]."""
    return vector.reshape(*vector.shape[:-1], *shape)


class ActionDistribution(Protocol):
    """Functions of policy logits [..., L] and actions, a nest of [..., *shape]."""

    num_logits: int  # L
    encoding_size: int  # features of `encode`
    has_uniform: bool  # whether `mix` takes an epsilon
    can_mask: bool  # whether each logit stands for something to choose
    free: tuple[bool, ...]  # L: which logits do not depend on the observation
    summary: str  # what there is to choose among
    concern: str  # what a colleague would say of it, with the cure; or nothing

    def sample(
        self, logits: torch.Tensor, generator: torch.Generator | None
    ) -> types.Nest:
        """An action."""

    def mode(self, logits: torch.Tensor) -> types.Nest:
        """The action of a greedy policy: the likeliest, of a Box the median."""

    def log_prob(self, logits: torch.Tensor, action: types.Nest) -> torch.Tensor:
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
        """Logits of (1 - epsilon) pi^(1 / temperature) + epsilon uniform.

        The power is normalised; of a joint action each part is mixed by itself.
        `epsilon` is one number, or float64 [...], one a row. Finite for finite logits;
        with epsilon 0 and temperature 1 the same tensor.
        """

    def normalise(self, logits: torch.Tensor) -> torch.Tensor:
        """The same for all logits that mean the same distribution."""

    def encode(self, action: types.Nest) -> torch.Tensor:
        """Float features [..., encoding_size] of an action, for use as an input."""

    def to_environment(self, action: types.Nest) -> types.Nest:
        """The action as the environment's space has it."""

    def describe(self, logits: torch.Tensor) -> list[Element]:
        """Of one row [L]: probabilities, or moments, of the environment's action."""


def check_epsilon(distribution: ActionDistribution, epsilon: float) -> None:
    """Refuses an exploration rate that `distribution` cannot mix in.

    Raises:
      BadInput: with the value and the cure.
    """
    if epsilon and not distribution.has_uniform:
        raise errors.BadInput(
            f"actors.epsilon ({epsilon:.6g}) needs actions of which there are finitely"
            " many, and these have a Box: set it to 0, and explore with"
            " config.actors.temperature or config.loss.entropy_cost."
        )


def check_mask(
    environment: specs.EnvironmentSpec, distribution: ActionDistribution
) -> types.Nest:
    """The spec of what the encoder sees: all but the mask.

    Raises:
      BadInput: the mask is not there, or does not fit the actions.
    """
    path = environment.action_mask
    if not path:
        return environment.observation
    leaves = dict(nest.flatten_with_path(environment.observation))
    if path not in leaves or len(leaves) == 1:
        raise errors.BadInput(
            f"agent.action_mask_key ({path!r}) is no part of the observation beside"
            f" others; there are {', '.join(map(repr, leaves))}: set"
            " config.agent.action_mask_key."
        )
    if not distribution.can_mask:
        raise errors.BadInput(
            f"agent.action_mask_key ({path!r}) needs Discrete or MultiDiscrete actions,"
            f" and these are {environment.action}: leave it empty."
        )
    size = leaves[path].example().size
    if size != distribution.num_logits:
        raise errors.BadInput(
            f"agent.action_mask_key ({path!r}) has {size} elements, and there are"
            f" {distribution.num_logits} actions to allow: one element each is needed."
        )
    return nest.without(environment.observation, path)
