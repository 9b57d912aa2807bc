"""The fast linear layer against torch's: values, gradients, shapes."""

import pytest
import torch
from torch.nn import functional

from impala_mp.networks import linear

_SHAPES = [(512, 64, 64), (5120, 4, 128), (640, 200, 32), (300, 700, 16)]


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch):
    """On processors of Intel, too."""
    monkeypatch.setattr(linear, "mkl_is_slow", lambda: True)


def _parts(rows, inputs, outputs, bias=True):
    torch.manual_seed(0)
    made = torch.randn(rows, inputs), torch.randn(outputs, inputs) / inputs**0.5
    return [x.requires_grad_() for x in (*made, *[torch.randn(outputs)] * bias)]


def _assert_equal(parts, compute, weights):
    """Values and gradients are those of float64."""
    exact = [x.detach().double().requires_grad_() for x in parts]
    found, expected = compute(*parts), functional.linear(*exact)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    for mine, its in zip(parts, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), its.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(shape, bias):
    parts = _parts(*shape, bias)
    assert linear._pays(*parts[:2], learns=True)
    _assert_equal(parts, linear.linear, torch.randn(shape[0], shape[2]))


def test_a_gradient_without_strides():
    """The gradient of a sum over all outputs is one."""
    parts = _parts(512, 64, 64)
    _assert_equal(parts, linear.linear, torch.ones(()).expand(512, 64))


def test_inputs_without_gradients_get_none():
    rows, weight, bias = _parts(512, 64, 64)
    rows = rows.detach()
    linear.linear(rows, weight, bias).sum().backward()
    assert rows.grad is None
    expected = rows.sum(0).expand(64, 64)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-4)


def test_transposed_weights_and_parts_of_rows():
    wide, weight = torch.randn(512, 128), torch.randn(64, 64)
    expected = functional.linear(wide[:, 32:96].contiguous(), weight.t().contiguous())
    found = linear.linear(wide[:, 32:96], weight.t())
    torch.testing.assert_close(found, expected)


def test_without_gradients_it_is_the_same():
    parts = _parts(512, 64, 64)
    expected = linear.linear(*parts).detach()
    with torch.no_grad():
        assert torch.equal(linear.linear(*parts), expected)
    with torch.inference_mode():
        assert torch.equal(linear.linear(*(x.detach() for x in parts)), expected)


def test_leading_axes_are_kept():
    layer, rows = linear.Linear(64, 64), torch.randn(32, 16, 64)
    found = layer(rows)
    expected = functional.linear(rows, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "learns"),
    [
        ((8, 4096, 512), torch.float32, True),
        ((4, 4096, 512), torch.float32, False),
        ((4096, 512, 2), torch.float32, False),
        ((64, 64, 64), torch.float32, False),
        ((512, 64, 64), torch.float64, False),
        ((512, 64, 64), torch.bfloat16, False),
    ],
)
def test_what_does_not_pay_is_torchs_own(shape, dtype, learns):
    rows, weight, bias = (
        x.detach().to(dtype).requires_grad_(learns) for x in _parts(*shape)
    )
    assert not linear._pays(rows, weight, learns)
    expected = functional.linear(rows, weight, bias)
    assert torch.equal(linear.linear(rows, weight, bias), expected)


def test_under_autocast_it_is_bfloat16():
    parts = _parts(512, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.linear(*parts).dtype == torch.bfloat16


def test_few_rows_pay_without_gradients():
    parts = [x.detach() for x in _parts(8, 4096, 512)]
    assert linear._pays(*parts[:2], learns=False)
    expected = functional.linear(*parts)
    torch.testing.assert_close(linear.linear(*parts), expected, rtol=1e-4, atol=1e-4)
