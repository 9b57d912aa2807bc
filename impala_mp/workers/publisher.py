"""Parameters from the learner's device to the store that actors read."""

from typing import Any

import torch

from impala_mp.transport import parameter_store


class DelayLine:
    """What a buffer held `delay` pushes before the newest, or at the first push.

    `output` is the buffer itself without a delay.
    """

    def __init__(self, flat: torch.Tensor, delay: int) -> None:
        """`flat` is any tensor; it is read at each `push`."""
        self._flat = flat
        self._ring = [torch.empty_like(flat) for _ in range(delay)]
        self._pushes = 0
        self.output = torch.empty_like(flat) if delay else flat

    @property
    def depth(self) -> int:
        """How many pushes old the output is."""
        return max(0, min(self._pushes - 1, len(self._ring)))

    def push(self) -> None:
        """Takes what the buffer holds now; the output goes one step on."""
        if self._ring:
            place = self._pushes % len(self._ring)
            late = self._pushes >= len(self._ring)
            oldest = self._ring[place if late else 0]
            self.output.copy_(oldest if self._pushes else self._flat)
            self._ring[place].copy_(self._flat)
        self._pushes += 1

    def state_dict(self) -> dict[str, Any]:
        """What is on its way; tensors on the CPU."""
        ring = [tensor.cpu().clone() for tensor in self._ring]
        output = self.output.cpu().clone()
        return {"pushes": self._pushes, "ring": ring, "output": output}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.output.copy_(state["output"])
        for mine, saved in zip(self._ring, state["ring"], strict=True):
            mine.copy_(saved)
        self._pushes = state["pushes"]


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
