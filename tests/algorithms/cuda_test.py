"""A GPU that is pretended: who takes it, graphs with calls between them, pinning."""

import contextlib
import gc
import types

import numpy as np
import pytest
import torch

from impala_mp.algorithms import cuda


class _Graph:
    """Records when it is replayed."""

    def __init__(self, log):
        self._log, self.number = log, sum(isinstance(x, _Graph) for x in log)
        log.append(self)

    def replay(self):
        self._log.append(f"replay {self.number}")


@pytest.fixture
def log(monkeypatch):
    """Log of captures, calls and replays."""
    log = []

    @contextlib.contextmanager
    def capture(graph, pool, stream, capture_error_mode):
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        log.append(f"begin {graph.number}")
        try:
            yield
        finally:
            log.append(f"end {graph.number}")

    fakes = {
        "CUDAGraph": lambda: _Graph(log),
        "graph": capture,
        "graph_pool_handle": lambda: "pool",
        "Stream": lambda: None,
        "stream": lambda stream: contextlib.nullcontext(),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(
        cuda.GraphedCallable, "_on_a_side_stream", lambda self, x: self._function(x)
    )
    return log


def _words(log):
    return [each for each in log if isinstance(each, str)]


def test_what_no_graph_holds_is_called_between_two_replays(log):
    def function(argument):
        log.append("first")
        graphed.between(lambda: log.append(f"sum {argument}"))
        log.append("second")
        graphed.between(lambda: log.append(f"gather {argument}"))
        log.append("third")
        return argument

    graphed = cuda.GraphedCallable(function, key=lambda x: x)
    eager = ["first", "sum 7", "second", "gather 7", "third"]
    for _ in range(3):
        log.clear()
        assert graphed(7) == 7
        assert _words(log) == eager

    replayed = ["replay 0", "sum 7", "replay 1", "gather 7", "replay 2"]
    captured = ["begin 0", "first", "end 0", "begin 1", "second", "end 1"]
    captured += ["begin 2", "third", "end 2"]
    log.clear()
    assert graphed(7) == 7
    assert _words(log) == captured + replayed
    log.clear()
    assert graphed(7) == 7
    assert _words(log) == replayed


def test_a_failure_in_a_capture_ends_it(log):
    def function(argument):
        graphed.between(lambda: None)
        if len(log) > 3:
            raise RuntimeError("out of memory")

    graphed = cuda.GraphedCallable(function, key=lambda x: x)
    for _ in range(3):
        graphed(0)
    with pytest.raises(RuntimeError, match="out of memory"):
        graphed(0)
    assert _words(log)[-1] == "end 1"
    assert gc.isenabled()
    graphed.between(lambda: log.append("at once"))
    assert log[-1] == "at once"


def test_python_frees_nothing_while_a_graph_is_captured(log):
    """An older graph that is freed then would end the capture."""
    collects = []
    graphed = cuda.GraphedCallable(
        lambda x: collects.append(gc.isenabled()), key=lambda x: x
    )
    for _ in range(4):
        graphed(0)
    assert collects == [True, True, True, False]
    assert gc.isenabled()


def test_a_function_without_calls_is_one_graph(log):
    graphed = cuda.GraphedCallable(lambda x: x, key=lambda x: x)
    for _ in range(3):
        graphed(0)
    graphed(0)
    graphed(1)
    assert _words(log) == ["begin 0", "end 0", "replay 0", "begin 1", "end 1"] + [
        "replay 1"
    ]


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", []), ("cpu:0", []), ("cuda", []), ("cuda:1", [1])]
)
def test_a_process_takes_the_gpu_it_is_given(monkeypatch, device, expected):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    cuda.take_device(device)
    assert taken == expected


@pytest.fixture
def pinned(monkeypatch):
    """Blocks that the driver holds: {address: bytes}. It refuses one of 7 bytes."""
    held = {}

    def register(address, size, flags):
        assert (flags, address in held) == (0, False)
        if size == 7:
            return 1
        held[address] = size
        return 0

    def check(code):
        if code:
            raise RuntimeError("not permitted")

    runtime = types.SimpleNamespace(
        cudaHostRegister=register, cudaHostUnregister=held.pop
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "check_error", check)
    return held


def test_memory_is_pinned_until_its_array_is_gone(pinned):
    blocks = [np.zeros(size, np.uint8) for size in (64, 100)]
    for _ in range(2):  # the second time they are
        assert cuda.pin(blocks)
    assert pinned == {block.ctypes.data: block.nbytes for block in blocks}
    blocks.pop()
    assert list(pinned.values()) == [64]
    del blocks
    assert not pinned


def test_memory_that_cannot_be_pinned_is_named_and_no_later_call_fails(
    pinned, monkeypatch, capsys
):
    def next_call(*args, **kwargs):
        raise RuntimeError("the error of the call before")

    monkeypatch.setattr(torch, "zeros", next_call)
    blocks = [np.zeros(size, np.uint8) for size in (100, 7)]
    assert not cuda.pin(blocks)
    assert list(pinned.values()) == [100]
    assert "could not be pinned for the GPU: not permitted." in capsys.readouterr().out
