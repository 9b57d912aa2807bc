"""Flat parameters and the optimizers that work on them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from impala_mp import errors
from impala_mp.algorithms import optimizers
from impala_mp.networks import flat_parameters
from impala_mp.runtime import allocation


def _module(width=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.Flatten(),
        nn.Linear(16 * width, 5),
    ).to(memory_format=torch.channels_last)


def _made(width=8):
    module = _module(width)
    module(torch.zeros(2, 3, 6, 6))
    return module


def test_the_module_uses_the_flat_buffer():
    module = _made()
    reference = copy.deepcopy(module)
    flat = flat_parameters.FlatParameters(module)
    inputs = torch.randn(4, 3, 6, 6)
    assert torch.equal(module(inputs), reference(inputs))
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert module[1].num_batches_tracked == reference[1].num_batches_tracked == 2
    flat.trainable.zero_()
    assert all((p == 0).all() for p in module.parameters())
    assert module[1].running_var.abs().sum() > 0  # buffers lie elsewhere


def test_gradients_add_up_in_place():
    module = _made()
    flat = flat_parameters.FlatParameters(module)
    gradient = flat.attach_gradients()
    inputs = torch.randn(4, 3, 6, 6)
    pointers = [p.grad.data_ptr() for p in module.parameters()]
    for times in (1, 2):
        module(inputs).sum().backward()
        assert [p.grad.data_ptr() for p in module.parameters()] == pointers
        if times == 1:
            once = gradient.clone()
    torch.testing.assert_close(gradient, 2 * once)
    norm = torch.stack([p.grad.norm() for p in module.parameters()]).norm()
    torch.testing.assert_close(gradient.norm(), norm)


def test_the_digest_tells_layouts_apart():
    digests = [flat_parameters.ParameterLayout(_made(w)).digest for w in (8, 8, 9)]
    assert digests[0] == digests[1] != digests[2]


def test_tied_and_frozen_parameters():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module[2].weight.requires_grad_(False)
    flat = flat_parameters.FlatParameters(module)
    flat.attach_gradients()
    module(torch.randn(2, 3)).sum().backward()
    assert module[1].weight.data_ptr() == module[0].weight.data_ptr()
    assert module[2].weight.grad is None
    assert flat.layout.num_trainable == 16 * 4  # three of 64 bytes, one padded


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="float64, not float32"):
        flat_parameters.ParameterLayout(nn.Linear(2, 2).double())


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


def test_a_module_that_memory_cannot_hold_is_refused_before_it_is_filled(monkeypatch):
    monkeypatch.setattr(allocation.shared_memory, "available_bytes", lambda: 4 * 4000)
    with allocation.limited_by_memory():
        nn.Linear(99, 10)  # 1000 parameters
    filled = []
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: filled.append(self))
    with (
        pytest.raises(errors.BadInput, match="of memory to be made, and 0 MiB are"),
        allocation.limited_by_memory(),
    ):
        nn.Linear(101, 10)
    assert filled == []
    nn.Linear(200, 10)  # out of there, anything goes


def test_other_errors_of_a_module_stay_what_they_are():
    with (
        pytest.raises(RuntimeError, match="negative dimension"),
        allocation.limited_by_memory(),
    ):
        nn.Linear(-1, 10)
