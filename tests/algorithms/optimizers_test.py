"""Optimizers against those of torch, and steps that are gated."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from impala_mp.algorithms import optimizers

_ONE = torch.ones(())
_RATE = torch.tensor(0.01)


def _make(name, flat, momentum):
    if name == "adam":
        return optimizers.Adam(flat, beta1=momentum, beta2=0.9, epsilon=1e-3)
    return optimizers.RMSProp(
        flat,
        decay=0.9,
        momentum=momentum,
        epsilon=1e-2,
        tensorflow=name == "rmsprop_tensorflow",
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["adam", "rmsprop_torch"])
def test_the_torch_dialects_equal_torch(name, momentum):
    start = torch.randn(30)
    theirs = nn.Parameter(start.clone())
    if name == "adam":
        reference = torch.optim.Adam([theirs], 0.01, (momentum, 0.9), eps=1e-3)
    else:
        reference = torch.optim.RMSprop([theirs], 0.01, 0.9, 1e-2, momentum=momentum)
    mine = start.clone()
    made = _make(name, mine, momentum)
    for _ in range(20):
        gradient = torch.randn(30)
        theirs.grad = gradient.clone()
        reference.step()
        made.step(gradient, _RATE, _ONE)
    torch.testing.assert_close(mine, theirs.data)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_tensorflow_dialect(momentum):
    """tf.compat.v1.train.RMSPropOptimizer: ms from 1, epsilon inside the root."""
    rng = np.random.default_rng(0)
    expected = rng.normal(size=30)
    mean_square, moving = np.ones(30), np.zeros(30)
    mine = torch.tensor(expected, dtype=torch.float32)
    made = _make("rmsprop_tensorflow", mine, momentum)
    for _ in range(20):
        gradient = rng.normal(size=30)
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        moving = momentum * moving + 0.01 * gradient / np.sqrt(mean_square + 1e-2)
        expected = expected - moving
        made.step(torch.tensor(gradient, dtype=torch.float32), _RATE, _ONE)
    np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["adam", "rmsprop_torch", "rmsprop_tensorflow"])
def test_a_gated_step_never_was(name, momentum):
    gradients = torch.randn(6, 30)
    ends = []
    for gated in (False, True):
        flat = torch.linspace(-1, 1, 30)
        made = _make(name, flat, momentum)
        for gradient in gradients:
            made.step(gradient, _RATE, _ONE)
            if gated:
                made.step(torch.zeros(30), _RATE, torch.zeros(()))
        ends.append((flat, made.state))
    assert torch.equal(ends[0][0], ends[1][0])
    for key, tensor in ends[0][1].items():
        assert torch.equal(tensor, ends[1][1][key])


def test_its_size_is_known_without_memory_or_a_slow_import():
    """torch imports sympy for some functions of the meta device, which takes 0.5 s."""
    code = (
        "import sys, torch\n"
        "from tests.algorithms import optimizers_test\n"
        "flat = torch.empty(7, device='meta')\n"
        "for name in 'adam', 'rmsprop_tensorflow', 'rmsprop_torch':\n"
        "    state = optimizers_test._make(name, flat, 0.9).state\n"
        "    assert all(each.device.type == 'meta' for each in state.values())\n"
        "assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
