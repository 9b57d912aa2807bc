"""CUDA graphs, asynchronous copies to the host, device memory."""

import math
from collections.abc import Callable
from typing import Any

import torch


class HostCopy:
    """Asynchronous copy to the host.

    From a GPU it goes into pinned memory, behind the work that is queued. `read` waits
    for that work only; `.item()` or `.cpu()` would also wait for work queued later. On
    a CPU it is the tensor itself.
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
        """Waits for the copy and returns it."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host


_WARM_UP = 3  # calls before a capture, in which libraries initialise


class GraphedCallable:
    """Calls `function(argument)`; from the fourth call on by replaying its graph.

    `function` must read and write the same memory at each call, never wait for the
    host, and return tensors, which the next call with the same argument overwrites.
    Arguments with different memory have different `key(argument)`, and a graph each.
    """

    def __init__(
        self, function: Callable[[Any], Any], key: Callable[[Any], int]
    ) -> None:
        self._function, self._key = function, key
        self._calls = 0
        self._graphs: dict[int, tuple[Any, Any]] = {}

    def __call__(self, argument: Any) -> Any:
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._on_a_side_stream(argument)
        key = self._key(argument)
        if key not in self._graphs:
            self._graphs[key] = self._capture(argument)
        graph, result = self._graphs[key]
        graph.replay()
        return result

    def _on_a_side_stream(self, argument: Any) -> Any:
        # Autograd remembers streams: a capture must not meet the default one.
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = self._function(argument)
        current.wait_stream(side)
        return result

    def _capture(self, argument: Any) -> tuple[Any, Any]:
        graph = torch.cuda.CUDAGraph()
        # torch's own stream for captures is of the GPU that was first captured on.
        with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            result = self._function(argument)
        return graph, result


def device_mib(device: torch.device) -> float:
    """Returns the memory that this process reserves on a GPU; NaN on a CPU."""
    if device.type != "cuda":
        return math.nan
    return torch.cuda.memory_reserved(device) / 2**20


def take_device(device: str) -> None:
    """Makes cuda:N the current GPU of this process.

    Streams, events and graphs belong to the current GPU, not to that of the tensors.
    """
    kind, index = torch.device(device).type, torch.device(device).index
    if kind == "cuda" and index is not None:
        torch.cuda.set_device(index)
