"""Parameters from the learner's device to the store that actors read."""

from typing import Any

import torch

from impala_mp import parameter_store


class Publisher:
    """Publishes a flat buffer, uint8 [num_bytes].

    From a GPU the copy runs behind the update, into pinned memory, and is published
    at the next call: the host never waits for work that it has just queued. That costs
    one update of policy lag.
    """

    def __init__(self, flat: torch.Tensor, store: parameter_store.ParameterStore):
        self._flat, self._store = flat, store
        self._pinned = torch.empty(0, dtype=torch.uint8)
        self._copied: Any = None  # event of a copy that has not been published
        if flat.is_cuda:
            self._pinned = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)

    @property
    def newest(self) -> int:
        """The version of the last `publish`, whether others have it yet or not."""
        return self._store.latest + (self._copied is not None)

    def publish(self) -> int:
        """Publishes the parameters as they are now, or soon after; their version."""
        if not self._flat.is_cuda:
            return self._store.publish(self._flat.numpy())
        self.flush()
        self._pinned.copy_(self._flat, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(self._flat.device))
        return self.newest

    def flush(self) -> None:
        """Publishes what is still on its way."""
        if self._copied is not None:
            self._copied.synchronize()
            self._store.publish(self._pinned.numpy())
            self._copied = None
