"""Cores: rows one by one or at once, nothing across FIRST, and naive twins."""

import pytest
import torch
from torch import nn

from impala_mp import errors
from tests.support import small_cores

_BUILT_IN = ("none", "lstm", "gru", "gtrxl")
_each_built_in = pytest.mark.parametrize("name", _BUILT_IN)
_NORMALISED = "experiments.minigrid:make_lstm"
_each_core = pytest.mark.parametrize(
    "name", [*_BUILT_IN, f"{__name__}:trace", _NORMALISED]
)


class _Trace(nn.Module):
    """A decaying sum of the inputs: a core of one's own."""

    def __init__(self, size):
        super().__init__()
        self.output_size, self.state_shapes = size, ((size,),)

    def forward(self, inputs, first, state):
        (trace,), outputs = state, []
        for row, reset in zip(inputs, first.unsqueeze(-1), strict=True):
            trace = 0.9 * torch.where(reset, 0.0, trace) + row
            outputs.append(trace)
        return torch.stack(outputs), (trace,)


def trace(input_size, config):
    return _Trace(input_size)


def _in_pieces(core, inputs, first, state, sizes):
    outputs = []
    pieces = zip(inputs.split(sizes), first.split(sizes), strict=True)
    for some_inputs, some_first in pieces:
        output, state = core(some_inputs, some_first, state)
        outputs.append(output)
    return torch.cat(outputs), state


@pytest.mark.parametrize("share_first", [0.0, 0.15, 0.6])
@pytest.mark.parametrize("sizes", [1, 2, 5, 12])
@_each_core
def test_rows_in_pieces_equal_all_rows_at_once(name, sizes, share_first):
    core = small_cores.scaled(name)
    for seed in range(3):
        inputs, first = small_cores.random_rows(seed, share_first)
        outputs, after = core(inputs, first, small_cores.random_state(core))
        expected, last = _in_pieces(
            core, inputs, first, small_cores.random_state(core), sizes
        )
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(after, last, rtol=1e-5, atol=1e-5)
        shapes = [tuple(leaf.shape[1:]) for leaf in after]
        assert shapes == list(core.state_shapes)


@pytest.mark.parametrize("at", [0, 1, small_cores.ROWS - 2])
@_each_core
def test_nothing_leaks_across_first(name, at):
    core, (inputs, first) = (
        small_cores.scaled(name),
        small_cores.random_rows(share_first=0.0),
    )
    first[at] = True
    outputs, after = core(inputs, first, small_cores.random_state(core, seed=1))
    changed = inputs.clone()
    changed[:at] += 1.0
    others, other_after = core(changed, first, small_cores.random_state(core, seed=2))
    assert torch.equal(outputs[at:], others[at:])
    assert all(map(torch.equal, after, other_after))
    assert at == 0 or not torch.equal(outputs[:at], others[:at])


@pytest.mark.parametrize("at", [0, 2])
@_each_core
def test_nan_does_not_survive_a_reset(name, at):
    core, (inputs, first) = (
        small_cores.scaled(name),
        small_cores.random_rows(share_first=0.0),
    )
    first[at] = True
    state = tuple(
        torch.full_like(leaf, torch.nan) for leaf in small_cores.random_state(core)
    )
    inputs[:at] = torch.nan
    outputs, after = core(inputs, first, state)
    assert outputs[:at].isnan().all()
    assert outputs[at:].isfinite().all()
    assert all(leaf.isfinite().all() for leaf in after)
    until = slice(at + 1)
    _, after = core(inputs[until], first[until], state)
    assert all(leaf.isfinite().all() for leaf in after)
    stepped, _ = _in_pieces(core, inputs, first, state, 1)
    assert stepped[at:].isfinite().all()


@_each_built_in
def test_nan_is_seen_until_the_reset(name):
    core, (inputs, first) = (
        small_cores.scaled(name),
        small_cores.random_rows(share_first=0.0),
    )
    inputs[3], first[5] = torch.nan, True
    outputs, _ = core(inputs, first, small_cores.random_state(core))
    bad = outputs.isnan().all((1, 2)).nonzero().flatten().tolist()
    assert bad == ([3] if name == "none" else [3, 4])


@pytest.mark.parametrize("spoiled", [False, True])
@_each_built_in
def test_the_gradient_is_finite_and_reaches_everything(name, spoiled):
    core, (inputs, first) = small_cores.fresh(name), small_cores.random_rows()
    state = small_cores.random_state(core)
    if spoiled:
        first[0] = True
        state = tuple(torch.full_like(leaf, torch.nan) for leaf in state)
    inputs.requires_grad_()
    outputs, _ = core(inputs, first, state)
    (outputs * torch.randn(outputs.shape)).sum().backward()
    for label, tensor in [("inputs", inputs), *core.named_parameters()]:
        assert tensor.grad.isfinite().all(), label
        assert tensor.grad.any(), label


@_each_built_in
def test_bfloat16_is_close(name):
    core, (inputs, first) = small_cores.scaled(name), small_cores.random_rows()
    inputs.requires_grad_()
    expected, expected_state = core(inputs, first, small_cores.random_state(core))
    with torch.autocast("cpu", torch.bfloat16):
        outputs, after = core(inputs, first, small_cores.random_state(core))
    torch.testing.assert_close(outputs.float(), expected, rtol=0.1, atol=0.1)
    for leaf, expected_leaf in zip(after, expected_state, strict=True):
        torch.testing.assert_close(leaf, expected_leaf, rtol=0.1, atol=0.1)
    outputs.float().square().sum().backward()
    assert all(x.grad.isfinite().all() for x in [inputs, *core.parameters()])


@_each_built_in
def test_nothing_is_asked_of_the_device(name):
    """Tensors without data have no answer: neither value nor number of what is true."""
    core = small_cores.scaled(name).to("meta")
    inputs, first = (tensor.to("meta") for tensor in small_cores.random_rows())
    inputs.requires_grad_()
    outputs, after = core(
        inputs, first, tuple(x.to("meta") for x in small_cores.random_state(core))
    )
    outputs.sum().backward()
    assert outputs.shape == (small_cores.ROWS, small_cores.BATCH, core.output_size)
    assert [leaf.shape[1:] for leaf in after] == list(core.state_shapes)


def _torchs_own(core, kind):
    """torch's module of this kind, in float64, with a core's parameters."""
    twin = kind(small_cores.INPUTS, small_cores.SIZE).double()
    with torch.no_grad():
        twin.weight_ih_l0.copy_(core.input.weight)
        twin.bias_ih_l0.copy_(core.input.bias)
        twin.weight_hh_l0.copy_(core.recurrent.weight)
        twin.bias_hh_l0.zero_()
        twin.bias_ih_l0[small_cores.SIZE : 2 * small_cores.SIZE] += (
            1.0  # remembers at first
        )
    return twin


@pytest.mark.parametrize(("name", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_lstm_and_gru_equal_those_of_torch(name, kind):
    core, (inputs, first) = (
        small_cores.scaled(name),
        small_cores.random_rows(share_first=0.0),
    )
    twin = _torchs_own(core, kind)
    state = small_cores.random_state(core)
    before = tuple(leaf.double().unsqueeze(0) for leaf in state)
    expected, _ = twin(inputs.double(), before if name == "lstm" else before[0])
    outputs, _ = core(inputs, first, state)
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-5, atol=1e-5)


class _WithoutShapes(nn.Module):
    output_size = small_cores.INPUTS


class _Transposed(_Trace):
    def forward(self, inputs, first, state):
        return inputs.transpose(0, 1), state


class _FlatShapes(_Trace):
    def __init__(self, size):
        super().__init__(size)
        self.state_shapes = (size,)


class _Forgetful(_Trace):
    def forward(self, inputs, first, state):
        return inputs


class _NoModule:
    output_size, state_shapes = small_cores.INPUTS, ()


def without_shapes(input_size, config):
    return _WithoutShapes()


def transposed(input_size, config):
    return _Transposed(input_size)


def flat_shapes(input_size, config):
    return _FlatShapes(input_size)


def forgetful(input_size, config):
    return _Forgetful(input_size)


class _List(_Trace):
    def forward(self, *arguments):
        return list(super().forward(*arguments))


def in_a_list(input_size, config):
    return _List(input_size)


def test_a_core_may_return_a_list():
    assert isinstance(small_cores.fresh(f"{__name__}:in_a_list"), _List)


def no_module(input_size, config):
    return _NoModule()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("transformer", "must be one of none, lstm, gru, gtrxl, or module:factory"),
        ("no_such_module:factory", "network.core .* no module 'no_such_module'"),
        (
            f"{__name__}:nothing",
            r"has no 'nothing'.*\(input_size, config\)",
        ),
        (f"{__name__}:without_shapes", "without state_shapes"),
        (f"{__name__}:no_module", "without parameters"),
        (
            f"{__name__}:flat_shapes",
            r"state_shapes \(5,\)\. It must be a tuple of shapes",
        ),
        (
            f"{__name__}:forgetful",
            r"returns Tensor\. It must return a pair",
        ),
        (
            f"{__name__}:transposed",
            r"\[\(2, 3, 5\), .* must be \[\(3, 2, 5\)",
        ),
    ],
)
def test_a_core_that_does_not_keep_the_contract_is_refused(name, words):
    with pytest.raises(errors.BadInput, match=words):
        small_cores.fresh(name)
