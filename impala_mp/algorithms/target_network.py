"""A target network: older parameters, with one owner and one place of update."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from impala_mp.networks import flat_parameters


class TargetNetwork:
    """A second flat copy of the learner's parameters and buffers, on its device.

    It has no module of its own: `in_place` lends it the learner's.
    """

    def __init__(self, settings: Any, online: flat_parameters.FlatParameters) -> None:
        self._period, self._polyak = settings.period, settings.polyak
        self._online = online
        self.flat = online.flat.clone()
        self._views = online.layout.views(self.flat)
        self._online_views = online.layout.views(online.flat)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The learner's network computes with the target's parameters, uncopied.

        Only for what wants no gradient.
        """
        self._online.point_at(self._views)
        try:
            with torch.no_grad():
                yield
        finally:
            self._online.point_at(self._online_views)

    def update(self, updates: int) -> None:
        """To be called once an update: moves the target at every `period`-th.

            target' = polyak target + (1 - polyak) online

        of the trainable parameters; all else is copied. With polyak 0 all is.

        The host decides, by a counter that checkpoints keep; the device works behind
        the update. A step that was skipped has left the parameters as they were, so
        that there is nothing bad to take over.

        Args:
          updates: learned so far.
        """
        if updates % self._period:
            return
        kept = self._online.layout.num_trainable * 4  # bytes
        mine, theirs = self.flat, self._online.flat
        if self._polyak:
            values = mine[:kept].view(torch.float32)
            values.lerp_(theirs[:kept].view(torch.float32), 1.0 - self._polyak)
            mine, theirs = mine[kept:], theirs[kept:]
        mine.copy_(theirs)
