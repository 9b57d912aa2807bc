"""All parameters in one flat buffer."""

import copy

import pytest
import torch
from torch import nn

from impala_mp.networks import flat_parameters


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
