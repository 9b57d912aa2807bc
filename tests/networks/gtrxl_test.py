"""GTrXL against a naive twin of the paper."""

import math

import pytest
import torch

from tests.support import small_cores


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
        w_r, w_z, w_g = self._linear(f"{name}.update", y).split(small_cores.SIZE)
        u_r, u_z = self._linear(f"{name}.stream", x).split(small_cores.SIZE)
        r = 1 / (1 + (-w_r - u_r).exp())
        z = 1 / (1 + (-w_z - u_z + self._p[f"{name}.bias"]).exp())
        candidate = self._linear(f"{name}.candidate", r * x)
        return (1 - z) * x + z * (w_g + candidate).tanh()

    def _attention(self, name, entries):
        """`entries` are what the last of them sees, oldest first."""
        normed = [self._norm(f"{name}.norm", entry) for entry in entries]
        query = self._linear(f"{name}.query", normed[-1])
        found, width = [], small_cores.SIZE // small_cores.HEADS
        for head in range(small_cores.HEADS):
            part = slice(head * width, (head + 1) * width)
            weights, values = [], []
            for age, entry in zip(range(len(normed) - 1, -1, -1), normed, strict=True):
                key, value = self._linear(f"{name}.key_value", entry).split(
                    small_cores.SIZE
                )
                logit = (query[part] * key[part]).sum() / math.sqrt(width)
                weights.append(logit + self._p[f"{name}.distance_bias"][head, age])
                values.append(value[part])
            weights = torch.stack(weights).exp()
            found.append((weights / weights.sum()) @ torch.stack(values))
        return self._linear(f"{name}.output", torch.cat(found))

    def row(self, x, seen):
        """The output of a row, given what each layer saw of those before it."""
        x = self._linear("embedding", x)
        for layer in range(small_cores.LAYERS):
            name = f"layers.{layer}"
            seen[layer].append(x)
            attended = self._attention(
                f"{name}.attention", seen[layer][-small_cores.WINDOW - 1 :]
            )
            x = self._gate(f"{name}.attention_gate", x, attended.relu())
            hidden = self._linear(f"{name}.mlp.1", self._norm(f"{name}.mlp.0", x))
            update = self._linear(f"{name}.mlp.3", hidden.relu())
            x = self._gate(f"{name}.mlp_gate", x, update.relu())
        return x


@pytest.mark.parametrize("share_first", [0.0, 0.15])
def test_gtrxl_equals_the_paper_row_by_row(share_first):
    core, (inputs, first) = (
        small_cores.scaled("gtrxl"),
        small_cores.random_rows(share_first=share_first),
    )
    state = small_cores.random_state(core)
    outputs, (memory, count) = core(inputs, first, state)
    twin = _Twin(core)
    for b in range(small_cores.BATCH):
        there = int(state[1][b, 0])
        kept = state[0][b, small_cores.WINDOW - there :].double()
        seen = [list(kept[:, layer]) for layer in range(small_cores.LAYERS)]
        for t in range(small_cores.ROWS):
            if first[t, b]:
                seen = [[] for _ in range(small_cores.LAYERS)]
            expected = twin.row(inputs[t, b].double(), seen)
            error = (outputs[t, b].double() - expected).abs().max()
            assert error < 1e-5, (t, b)
        there = min(small_cores.WINDOW, len(seen[0]))
        assert count[b].item() == there
        assert not memory[b, : small_cores.WINDOW - there].any()
        for layer in range(small_cores.LAYERS):
            expected = torch.stack(seen[layer][-there:])
            actual = memory[b, small_cores.WINDOW - there :, layer].double()
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gtrxl_sees_as_far_as_its_windows_reach(layers):
    core, (inputs, first) = (
        small_cores.scaled("gtrxl", layers),
        small_cores.random_rows(share_first=0.0),
    )
    inputs.requires_grad_()
    outputs, _ = core(inputs, first, small_cores.random_state(core))
    outputs[-1].sum().backward()
    reached = inputs.grad.abs().amax((1, 2)) > 0.0
    ages = torch.arange(small_cores.ROWS - 1, -1, -1)
    assert torch.equal(reached, ages <= layers * small_cores.WINDOW)


def test_a_fresh_gtrxl_is_close_to_the_identity():
    """b_g = 2: z is about sigmoid(-2), 0.12, at each of the gates."""
    core, (inputs, first) = (
        small_cores.fresh("gtrxl", layers=1),
        small_cores.random_rows(),
    )
    outputs, _ = core(inputs, first, small_cores.random_state(core))
    embedded = core.embedding(inputs)
    change = (outputs - embedded).norm() / embedded.norm()
    assert 0.05 < change < 0.6
