"""Fast functions against torch's: values, gradients, dtypes, sizes."""

import pytest
import torch

from impala_mp.networks import activations

_SHAPE = (activations._LARGE // 64 + 1, 64)


def _numbers(dtype=torch.float32):
    torch.manual_seed(0)
    numbers = torch.randn(_SHAPE) * torch.logspace(-4, 2, 64)
    numbers[0, :6] = torch.tensor([0.0, -0.0, 1e30, -1e30, torch.inf, -torch.inf])
    return numbers.to(dtype)


def test_values_are_those_of_torch():
    numbers = _numbers()
    found, expected = activations.tanh(numbers), torch.tanh(numbers.double())
    assert (found.double() - expected).abs().max() < 2e-7
    assert found.abs().max() == 1.0
    assert torch.equal(numbers, _numbers())  # nothing is changed in place
    assert activations.tanh(torch.full(_SHAPE, torch.nan)).isnan().all()


def test_gradients_are_those_of_torch():
    numbers, weights = _numbers()[1:], torch.randn(_SHAPE)[1:]
    found, expected = (
        numbers.clone().requires_grad_(),
        numbers.double().requires_grad_(),
    )
    (activations.Tanh()(found) * weights).sum().backward()
    (torch.tanh(expected) * weights.double()).sum().backward()
    torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-5, atol=1e-6)


def test_without_gradients_it_is_the_same():
    numbers = _numbers()
    with torch.no_grad():
        expected = activations.tanh(numbers)
    leaf = numbers.clone().requires_grad_()
    assert torch.equal(activations.tanh(leaf), expected)
    with torch.inference_mode():
        assert torch.equal(activations.tanh(numbers), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_torchs_own(dtype):
    """In bfloat16, 1 minus a number near it would lose all of a small value."""
    numbers = _numbers(dtype)
    assert torch.equal(activations.tanh(numbers), torch.tanh(numbers))


def test_small_tensors_are_torchs_own():
    numbers = _numbers().flatten()[: activations._LARGE - 1]
    assert torch.equal(activations.tanh(numbers), torch.tanh(numbers))


def test_a_part_of_a_tensor_is_as_a_whole():
    numbers = torch.randn(256, 4 * 64)
    part = numbers.chunk(4, -1)[2]
    expected = activations.tanh(part.contiguous())
    assert torch.equal(activations.tanh(part), expected)


@pytest.mark.parametrize("num_actions", [1, 2, 6, 15, 16, 40])
@pytest.mark.parametrize("rows", [(3,), (5, 700)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_softmax_is_that_of_torch(num_actions, rows, dtype):
    torch.manual_seed(0)
    logits = (10.0 * torch.randn(*rows, num_actions)).to(dtype)
    logits[0, ..., 0] = -1e9  # an action that is not allowed
    weights = torch.randn_like(logits)
    mine, its = (logits.clone().requires_grad_() for _ in range(2))
    found, expected = activations.log_softmax(mine), torch.log_softmax(its, -1)
    torch.testing.assert_close(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(mine.grad, its.grad)


def test_log_softmax_of_a_part_is_as_of_a_whole():
    logits = torch.randn(300, 12)
    part = logits[:, 4:10]
    assert not part.is_contiguous()
    expected = torch.log_softmax(part, -1)
    torch.testing.assert_close(activations.log_softmax(part), expected)
