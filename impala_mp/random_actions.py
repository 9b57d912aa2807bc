"""Actions at random, of those that an environment allows."""

from typing import Any

import gymnasium
import numpy as np
import torch

from impala_mp import categorical, distributions, nest, specs, types


class NothingAllowed(Exception):
    """An action mask leaves no choice; the text is a sentence."""


class RandomActions:
    """Draws actions [E, ...] as the environment takes them, always the same ones."""

    def __init__(
        self, space: gymnasium.Space[Any], count: int, mask_path: str = ""
    ) -> None:
        """`space` is of a single copy; `mask_path`, in its observations.

        Where no mask is, the space itself is drawn from.

        Raises:
          BadInput: the space is not supported.
        """
        self._space = gymnasium.vector.utils.batch_space(space, count)
        self._space.seed(0)
        self._mask_path = mask_path
        self._spec = specs.action_spec(space)
        self._distribution = distributions.from_spec(self._spec)
        self._generator = torch.Generator().manual_seed(0)

    def anything(self) -> types.Nest:
        """Of the whole space, whatever is allowed."""
        return self._space.sample()

    def draw(self, observation: types.Nest, is_over: np.ndarray) -> types.Nest:
        """What `observation` [E, ...] allows.

        Where an episode `is_over`, bool [E], the action is ignored, and may be any.

        Raises:
          NothingAllowed: it allows nothing.
        """
        if not self._mask_path:
            return self.anything()
        mask = nest.at(observation, self._mask_path)
        allowed = np.asarray(mask).reshape(len(mask), -1) != 0
        self._check(allowed[~is_over])
        uniform = torch.zeros(allowed.shape)
        logits = categorical.masked(uniform, torch.from_numpy(allowed))
        action = self._distribution.sample(logits, generator=self._generator)
        return self._distribution.to_environment(action).numpy()

    def _check(self, allowed: np.ndarray) -> None:
        sizes = np.atleast_1d(self._spec.num_actions)
        for i, part in enumerate(np.split(allowed, np.cumsum(sizes)[:-1], -1)):
            if not part.any(-1).all():
                where = f" for element {i} of an action" if len(sizes) > 1 else ""
                raise NothingAllowed(
                    f"the mask {self._mask_path!r} allows nothing{where}, and an agent"
                    " then plays what is forbidden: allow at least one."
                )
