"""Parameters as they were some updates ago: policy lag on purpose, for studies."""

from typing import Any

import torch


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
