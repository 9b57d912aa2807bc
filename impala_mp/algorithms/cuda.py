"""CUDA graphs, asynchronous copies from and to the host, device memory."""

import contextlib
import gc
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

LARGE = 2**16  # bytes of an array that is worth a separate copy to the device

_pinned = set[int]()  # addresses


def pin(blocks: Sequence[np.ndarray]) -> bool:
    """Pins memory where it is, until its arrays are gone; returns whether it could.

    A GPU copies from it without the host. Some containers refuse it.
    """
    runtime = torch.cuda.cudart()
    for block in blocks:
        address = block.ctypes.data
        if address in _pinned:
            continue
        try:
            torch.cuda.check_error(runtime.cudaHostRegister(address, block.nbytes, 0))
        except RuntimeError as error:
            print(
                f"Shared memory could not be pinned for the GPU: {error}.", flush=True
            )
            with contextlib.suppress(RuntimeError):  # The next call would raise it.
                torch.zeros(1, device="cuda")
            return False
        _pinned.add(address)
        unpin = weakref.finalize(block, _unpin, runtime, address)
        unpin.atexit = False
    return True


def _unpin(runtime: Any, address: int) -> None:
    _pinned.discard(address)
    runtime.cudaHostUnregister(address)


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
    What no graph can hold, such as an exchange with other processes, it gives to
    `between`: there one graph ends and the next begins.
    """

    def __init__(
        self, function: Callable[[Any], Any], key: Callable[[Any], int]
    ) -> None:
        self._function, self._key = function, key
        self._calls = 0
        self._graphs: dict[int, tuple[_Capture, Any]] = {}
        self._open: _Capture | None = None

    def __call__(self, argument: Any) -> Any:
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._on_a_side_stream(argument)
        key = self._key(argument)
        if key not in self._graphs:
            self._graphs[key] = self._capture(argument)
        captured, result = self._graphs[key]
        captured.replay()
        return result

    def between(self, call: Callable[[], None]) -> None:
        """Makes a call of the function now, or in each replay if it is captured.

        It reads and writes tensors that were made before it.
        """
        if self._open is None:
            call()
        else:
            self._open.cut(call)

    def _on_a_side_stream(self, argument: Any) -> Any:
        # Autograd remembers streams: a capture must not meet the default one.
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = self._function(argument)
        current.wait_stream(side)
        return result

    def _capture(self, argument: Any) -> "tuple[_Capture, Any]":
        with _without_collection(), _Capture() as captured:
            self._open = captured
            try:
                result = self._function(argument)
            finally:
                self._open = None
        return captured, result


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Keeps Python from freeing another graph, which would end a capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Capture:
    """Graphs of one function, and the calls between them."""

    def __init__(self) -> None:
        # torch's own stream for captures is of the GPU that was first captured on.
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: list[Any] = []
        self._calls: list[Callable[[], None]] = []  # one after each graph but the last
        self._capturing = contextlib.ExitStack()

    def __enter__(self) -> "_Capture":
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)
        # Other threads may use the GPU meanwhile: NCCL's watchdog does.
        self._capturing.enter_context(
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            )
        )
        return self

    def __exit__(self, *error: Any) -> None:
        self._capturing.__exit__(*error)

    def cut(self, call: Callable[[], None]) -> None:
        self._capturing.close()
        self._calls.append(call)
        self.__enter__()

    def replay(self) -> None:
        self._graphs[0].replay()
        for call, graph in zip(self._calls, self._graphs[1:], strict=True):
            call()
            graph.replay()


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
