"""Publication of parameters from the learner's device, optionally delayed."""

from typing import Any

import torch

from impala_mp.transport import parameter_store


class DelayLine:
    """Delays a buffer by `delay` pushes; until then `output` is the first push.

    Without a delay `output` is the buffer itself.
    """

    def __init__(self, flat: torch.Tensor, delay: int) -> None:
        """`flat` is any tensor; each `push` reads it."""
        self._flat = flat
        self._ring = [torch.empty_like(flat) for _ in range(delay)]
        self.pushes = 0
        self.output = torch.empty_like(flat) if delay else flat

    @property
    def depth(self) -> int:
        """Age of the output, in pushes."""
        return max(0, min(self.pushes - 1, len(self._ring)))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its memory, on the device; [] without a delay. Pushes change it in place."""
        return [self.output, *self._ring] if self._ring else []

    def push(self) -> None:
        """Stores the buffer; the output moves by one push."""
        if self._ring:
            place = self.pushes % len(self._ring)
            late = self.pushes >= len(self._ring)
            oldest = self._ring[place if late else 0]
            self.output.copy_(oldest if self.pushes else self._flat)
            self._ring[place].copy_(self._flat)
        self.pushes += 1

    def state_dict(self) -> dict[str, Any]:
        """Returns the delayed buffers; tensors on the CPU."""
        ring = [tensor.cpu().clone() for tensor in self._ring]
        output = self.output.cpu().clone()
        return {"pushes": self.pushes, "ring": ring, "output": output}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of `state_dict`."""
        self.output.copy_(state["output"])
        for mine, saved in zip(self._ring, state["ring"], strict=True):
            mine.copy_(saved)
        self.pushes = state["pushes"]


class Publisher:
    """Publishes a flat buffer, uint8 [num_bytes], or its state `delay` calls before.

    From a GPU the copy runs behind the update, into pinned memory, and is published at
    the next call. The host never waits for work that it has just queued. This costs one
    update of policy lag.
    """

    def __init__(
        self,
        flat: torch.Tensor,
        store: parameter_store.ParameterStore,
        delay: int = 0,
        at_once: bool = False,
    ) -> None:
        """`at_once`: a copy from a GPU is waited for and published by the same call."""
        self._at_once = at_once
        self.delay_line, self._store = DelayLine(flat, delay), store
        self.source = self.delay_line.output  # buffer that versions are copies of
        self._pinned = torch.empty(0, dtype=torch.uint8)
        self._copied: Any = None  # event of a copy that has not been published
        if flat.is_cuda:
            self._pinned = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)

    @property
    def newest(self) -> int:
        """Version that lag is counted from: the published one plus the delay."""
        return self._published + self.delay_line.depth

    @property
    def _published(self) -> int:
        """Version of the last publication, in the store or on its way there."""
        return self._store.latest + (self._copied is not None)

    def publish(self) -> int:
        """Publishes the current parameters; returns the version."""
        self.delay_line.push()
        return self.republish()

    def republish(self) -> int:
        """Publishes `source` as it is, for a new store; returns the version."""
        if not self.source.is_cuda:
            return self._store.publish(self.source.numpy())
        self.flush()
        self._pinned.copy_(self.source, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(self.source.device))
        if self._at_once:
            self.flush()
        return self._published

    def flush(self) -> None:
        """Publishes a copy that is still on its way."""
        if self._copied is not None:
            self._copied.synchronize()
            self._store.publish(self._pinned.numpy())
            self._copied = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the delayed buffers; tensors on the CPU."""
        return self.delay_line.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the delayed buffers. `republish` publishes where they were."""
        self.delay_line.load_state_dict(state)
