"""What a device tensor held at a moment, for the host to read a little later."""

from typing import Any

import torch


class HostCopy:
    """A copy on its way to the host.

    From a GPU it goes into pinned memory, behind what has been queued so far. `read`
    waits for that, and for nothing that has been queued since: `.item()` or `.cpu()`
    in its place would wait for all of it. On a CPU it is the tensor itself.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._host = tensor
        self._copied: Any = None  # event of the copy
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def read(self) -> torch.Tensor:
        """The copy, once it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host
