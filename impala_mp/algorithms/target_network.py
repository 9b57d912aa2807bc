"""Target network: older parameters, with one owner and one place of update."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from impala_mp.networks import flat_parameters


class TargetNetwork:
    """Second flat copy of the learner's parameters and buffers, on its device.

    It has no separate module: `in_place` puts it into the learner's.
    """

    def __init__(self, settings: Any, online: flat_parameters.FlatParameters) -> None:
        self._period, self._polyak = settings.period, settings.polyak
        self._online = online
        self.flat = online.flat.clone()
        self._views = online.layout.views(self.flat)
        self._online_views = online.layout.views(online.flat)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Lets the learner's network compute with the target's parameters, uncopied.

        Nothing computed in this context may need a gradient.
        """
        self._online.point_at(self._views)
        try:
            with torch.no_grad():
                yield
        finally:
            self._online.point_at(self._online_views)

    def update(self, updates: int) -> None:
        """Moves the target at every `period`-th update. Called once an update.

            target' = polyak target + (1 - polyak) online

        holds for trainable parameters; all others are copied. With polyak 0 all are.

        The host decides, by a counter that checkpoints keep; the device works behind
        the update. A skipped step left the parameters finite, so the copy is finite.

        Args:
          updates: number of updates so far.
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
