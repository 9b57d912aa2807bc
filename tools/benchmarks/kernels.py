"""Subject kernels: functions of the networks beside torch's own, on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks import context as context_lib
from impala_mp.networks import activations, linear

_ROWS = 21 * 512  # of 512 trajectories of 20 steps

Answer = tuple[context_lib.Rows, context_lib.Ratios]
_Function = Callable[..., torch.Tensor]


def kernels(context: context_lib.Context) -> Answer:
    """Time of a forward and backward pass of each, and of torch's, in turn."""
    calls = {
        f"{name}, {whose}": _call(function, inputs)
        for name, (mine, its, *inputs) in _cases().items()
        for whose, function in (("ours", mine), ("torch's", its))
    }
    values: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(1 + context.options.repeats):  # one to warm up
        for name, call in calls.items():
            secs = context.seconds_a_call(call, 0.2)
            values[name] += [1e6 * secs] if repeat else []
    found = {k: context_lib.summary(v, "µs") for k, v in values.items()}
    ratios = {
        f"{name} over torch's": found[f"{name}, ours"]["median"]
        / found[f"{name}, torch's"]["median"]
        for name in _cases()
    }
    return found, ratios


def _cases() -> dict[str, tuple[Any, ...]]:
    features = torch.randn(_ROWS, 64)
    return {
        "tanh 10752 x 64": (activations.tanh, torch.tanh, features),
        "log_softmax 10752 x 6": (
            activations.log_softmax,
            lambda x: torch.log_softmax(x, -1),
            torch.randn(_ROWS, 6),
        ),
        "linear 10752 x 64 x 64": (
            *(linear.linear, functional.linear),
            *(features, torch.randn(64, 64), torch.randn(64)),
        ),
        "linear 672 x 3136 x 512": (
            *(linear.linear, functional.linear),
            *(torch.randn(672, 3136), torch.randn(512, 3136), torch.randn(512)),
        ),
    }


def _call(function: _Function, inputs: list[torch.Tensor]) -> Callable[[], None]:
    leaves = [each.clone().requires_grad_() for each in inputs]
    gradient = torch.ones_like(function(*leaves))

    def call() -> None:
        function(*leaves).backward(gradient)

    return call
