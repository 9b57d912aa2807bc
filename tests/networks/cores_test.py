"""Cores: rows one by one or at once, nothing across FIRST, and naive twins."""

import math

import pytest
import torch
from torch import nn

from impala_mp import errors
from impala_mp.networks import cores
from tests.support import builders

_INPUTS, _SIZE, _HEADS, _LAYERS, _WINDOW = 5, 8, 2, 2, 3
_ROWS, _BATCH = 13, 6
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


def _fresh(name, layers=_LAYERS):
    config = builders.config(**{"network.core": name, "network.core_size": _SIZE})
    config.network.gtrxl.update(layers=layers, heads=_HEADS, window=_WINDOW)
    torch.manual_seed(0)
    return cores.make(config.network, _INPUTS)


def _core(name, layers=_LAYERS):
    """One whose gates are neither open nor shut, and whose biases are not zero."""
    core = _fresh(name, layers)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return core


def _state(core, seed=0):
    """Any; where a leaf counts the rows of a memory, from none to all of them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.arange(seed, seed + _BATCH) % (_WINDOW + 1)
    return tuple(
        counts.float().unsqueeze(-1)
        if shape == (1,)
        else torch.randn(_BATCH, *shape, generator=generator)
        for shape in core.state_shapes
    )


def _rows(seed=0, share_first=0.15):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(_ROWS, _BATCH, _INPUTS, generator=generator)
    return inputs, torch.rand(_ROWS, _BATCH, generator=generator) < share_first


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
    core = _core(name)
    for seed in range(3):
        inputs, first = _rows(seed, share_first)
        outputs, after = core(inputs, first, _state(core))
        expected, last = _in_pieces(core, inputs, first, _state(core), sizes)
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(after, last, rtol=1e-5, atol=1e-5)
        shapes = [tuple(leaf.shape[1:]) for leaf in after]
        assert shapes == list(core.state_shapes)


@pytest.mark.parametrize("at", [0, 1, _ROWS - 2])
@_each_core
def test_nothing_leaks_across_first(name, at):
    core, (inputs, first) = _core(name), _rows(share_first=0.0)
    first[at] = True
    outputs, after = core(inputs, first, _state(core, seed=1))
    changed = inputs.clone()
    changed[:at] += 1.0
    others, other_after = core(changed, first, _state(core, seed=2))
    assert torch.equal(outputs[at:], others[at:])
    assert all(map(torch.equal, after, other_after))
    assert at == 0 or not torch.equal(outputs[:at], others[:at])


@pytest.mark.parametrize("at", [0, 2])
@_each_core
def test_what_is_not_a_number_does_not_survive_a_reset(name, at):
    core, (inputs, first) = _core(name), _rows(share_first=0.0)
    first[at] = True
    state = tuple(torch.full_like(leaf, torch.nan) for leaf in _state(core))
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
def test_what_is_not_a_number_is_seen_until_the_reset(name):
    core, (inputs, first) = _core(name), _rows(share_first=0.0)
    inputs[3], first[5] = torch.nan, True
    outputs, _ = core(inputs, first, _state(core))
    bad = outputs.isnan().all((1, 2)).nonzero().flatten().tolist()
    assert bad == ([3] if name == "none" else [3, 4])


@pytest.mark.parametrize("spoiled", [False, True])
@_each_built_in
def test_the_gradient_is_finite_and_reaches_everything(name, spoiled):
    core, (inputs, first) = _fresh(name), _rows()
    state = _state(core)
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
    core, (inputs, first) = _core(name), _rows()
    inputs.requires_grad_()
    expected, expected_state = core(inputs, first, _state(core))
    with torch.autocast("cpu", torch.bfloat16):
        outputs, after = core(inputs, first, _state(core))
    torch.testing.assert_close(outputs.float(), expected, rtol=0.1, atol=0.1)
    for leaf, expected_leaf in zip(after, expected_state, strict=True):
        torch.testing.assert_close(leaf, expected_leaf, rtol=0.1, atol=0.1)
    outputs.float().square().sum().backward()
    assert all(x.grad.isfinite().all() for x in [inputs, *core.parameters()])


@_each_built_in
def test_nothing_is_asked_of_the_device(name):
    """Tensors without data have no answer: neither value nor number of what is true."""
    core = _core(name).to("meta")
    inputs, first = (tensor.to("meta") for tensor in _rows())
    inputs.requires_grad_()
    outputs, after = core(inputs, first, tuple(x.to("meta") for x in _state(core)))
    outputs.sum().backward()
    assert outputs.shape == (_ROWS, _BATCH, core.output_size)
    assert [leaf.shape[1:] for leaf in after] == list(core.state_shapes)


def _torchs_own(core, kind):
    """torch's module of this kind, in float64, with a core's parameters."""
    twin = kind(_INPUTS, _SIZE).double()
    with torch.no_grad():
        twin.weight_ih_l0.copy_(core.input.weight)
        twin.bias_ih_l0.copy_(core.input.bias)
        twin.weight_hh_l0.copy_(core.recurrent.weight)
        twin.bias_hh_l0.zero_()
        twin.bias_ih_l0[_SIZE : 2 * _SIZE] += 1.0  # remembers at first
    return twin


@pytest.mark.parametrize(("name", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_lstm_and_gru_equal_those_of_torch(name, kind):
    core, (inputs, first) = _core(name), _rows(share_first=0.0)
    twin = _torchs_own(core, kind)
    state = _state(core)
    before = tuple(leaf.double().unsqueeze(0) for leaf in state)
    expected, _ = twin(inputs.double(), before if name == "lstm" else before[0])
    outputs, _ = core(inputs, first, state)
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-5, atol=1e-5)


class _Twin:
    """GTrXL as the paper has it, for one row of one trajectory; float64."""

    def __init__(self, core):
        self._p = {k: v.detach().double() for k, v in core.named_parameters()}

    def _linear(self, name, x):
        y = self._p[f"{name}.weight"] @ x
        return y + self._p[f"{name}.bias"] if f"{name}.bias" in self._p else y

    def _norm(self, name, x):
        scaled = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        return scaled * self._p[f"{name}.weight"] + self._p[f"{name}.bias"]

    def _gate(self, name, x, y):
        w_r, w_z, w_g = self._linear(f"{name}.update", y).split(_SIZE)
        u_r, u_z = self._linear(f"{name}.stream", x).split(_SIZE)
        r = 1 / (1 + (-w_r - u_r).exp())
        z = 1 / (1 + (-w_z - u_z + self._p[f"{name}.bias"]).exp())
        candidate = self._linear(f"{name}.candidate", r * x)
        return (1 - z) * x + z * (w_g + candidate).tanh()

    def _attention(self, name, entries):
        """`entries` are what the last of them sees, oldest first."""
        normed = [self._norm(f"{name}.norm", entry) for entry in entries]
        query = self._linear(f"{name}.query", normed[-1])
        found, width = [], _SIZE // _HEADS
        for head in range(_HEADS):
            part = slice(head * width, (head + 1) * width)
            weights, values = [], []
            for age, entry in zip(range(len(normed) - 1, -1, -1), normed, strict=True):
                key, value = self._linear(f"{name}.key_value", entry).split(_SIZE)
                logit = (query[part] * key[part]).sum() / math.sqrt(width)
                weights.append(logit + self._p[f"{name}.distance_bias"][head, age])
                values.append(value[part])
            weights = torch.stack(weights).exp()
            found.append((weights / weights.sum()) @ torch.stack(values))
        return self._linear(f"{name}.output", torch.cat(found))

    def row(self, x, seen):
        """The output of a row, given what each layer saw of those before it."""
        x = self._linear("embedding", x)
        for layer in range(_LAYERS):
            name = f"layers.{layer}"
            seen[layer].append(x)
            attended = self._attention(f"{name}.attention", seen[layer][-_WINDOW - 1 :])
            x = self._gate(f"{name}.attention_gate", x, attended.relu())
            hidden = self._linear(f"{name}.mlp.1", self._norm(f"{name}.mlp.0", x))
            update = self._linear(f"{name}.mlp.3", hidden.relu())
            x = self._gate(f"{name}.mlp_gate", x, update.relu())
        return x


@pytest.mark.parametrize("share_first", [0.0, 0.15])
def test_gtrxl_equals_the_paper_row_by_row(share_first):
    core, (inputs, first) = _core("gtrxl"), _rows(share_first=share_first)
    state = _state(core)
    outputs, (memory, count) = core(inputs, first, state)
    twin = _Twin(core)
    for b in range(_BATCH):
        there = int(state[1][b, 0])
        kept = state[0][b, _WINDOW - there :].double()
        seen = [list(kept[:, layer]) for layer in range(_LAYERS)]
        for t in range(_ROWS):
            if first[t, b]:
                seen = [[] for _ in range(_LAYERS)]
            expected = twin.row(inputs[t, b].double(), seen)
            error = (outputs[t, b].double() - expected).abs().max()
            assert error < 1e-5, (t, b)
        there = min(_WINDOW, len(seen[0]))
        assert count[b].item() == there
        assert not memory[b, : _WINDOW - there].any()
        for layer in range(_LAYERS):
            expected = torch.stack(seen[layer][-there:])
            actual = memory[b, _WINDOW - there :, layer].double()
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gtrxl_sees_as_far_as_its_windows_reach(layers):
    core, (inputs, first) = _core("gtrxl", layers), _rows(share_first=0.0)
    inputs.requires_grad_()
    outputs, _ = core(inputs, first, _state(core))
    outputs[-1].sum().backward()
    reached = inputs.grad.abs().amax((1, 2)) > 0.0
    ages = torch.arange(_ROWS - 1, -1, -1)
    assert torch.equal(reached, ages <= layers * _WINDOW)


def test_a_fresh_gtrxl_is_close_to_the_identity():
    """b_g = 2: z is about sigmoid(-2), 0.12, at each of the gates."""
    core, (inputs, first) = _fresh("gtrxl", layers=1), _rows()
    outputs, _ = core(inputs, first, _state(core))
    embedded = core.embedding(inputs)
    change = (outputs - embedded).norm() / embedded.norm()
    assert 0.05 < change < 0.6


class _WithoutShapes(nn.Module):
    output_size = _INPUTS


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
    output_size, state_shapes = _INPUTS, ()


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


def test_what_a_core_gives_may_be_a_list():
    assert isinstance(_fresh(f"{__name__}:in_a_list"), _List)


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
            r"state_shapes \(5,\), which must be a shape",
        ),
        (
            f"{__name__}:forgetful",
            "gives Tensor, and has to give two things",
        ),
        (
            f"{__name__}:transposed",
            r"\[\(2, 3, 5\), .* should be \[\(3, 2, 5\)",
        ),
    ],
)
def test_a_core_that_does_not_keep_the_contract_is_refused(name, words):
    with pytest.raises(errors.BadInput, match=words):
        _fresh(name)
