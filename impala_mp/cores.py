"""Recurrent cores: what an agent remembers between the rows of an episode."""

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from impala_mp import core_settings, errors, factories, initialisers

CoreState = tuple[torch.Tensor, ...]


class Core(Protocol):
    """What stands between torso and heads, a torch Module.

    Row by row and in one call are the same: T calls with one row each give the outputs
    and the state of one call with T rows. A row at FIRST sees nothing of the rows and
    the state before it, not even where they are NaN. Zeros are the state of whoever
    has seen nothing.
    """

    @property
    def output_size(self) -> int:
        """H, units."""

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the leaves of the state, float32, without the batch dimension."""

    def __call__(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """inputs [T, B, F], first bool [T, B], state of leaves [B, *shape] before row 0
        -> outputs [T, B, H], state after the last row.
        """


class NoCore(nn.Module):
    """A feed-forward agent: no state, nothing to reset."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.output_size = size
        self.state_shapes: tuple[tuple[int, ...], ...] = ()

    def forward(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        return inputs, state


class LSTMCore(nn.Module):
    """LSTM (Hochreiter and Schmidhuber 1997) whose state is zero at FIRST."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.output_size = size
        self.state_shapes = ((size,), (size,))
        self.input = initialisers.orthogonal(nn.Linear(input_size, 4 * size), 1.0)
        self.recurrent = nn.Linear(size, 4 * size, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)

    def forward(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """inputs [T, B, F], first bool [T, B] -> [T, B, H], state after the last row.

        The input's share of the gates is one product for all T; only the recurrent
        share has to wait for its turn.
        """
        hidden, cell = state
        gates_from_input = self.input(inputs)
        # Chosen, not multiplied: what is not a number must not survive a reset.
        reset, zero = first.unsqueeze(-1), inputs.new_zeros(())
        outputs = []
        for row in range(inputs.shape[0]):
            hidden = torch.where(reset[row], zero, hidden)
            cell = torch.where(reset[row], zero, cell)
            gates = gates_from_input[row] + self.recurrent(hidden)
            i, f, g, o = gates.chunk(4, -1)
            cell = torch.sigmoid(f + 1.0) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs), (hidden, cell)


class GRUCore(nn.Module):
    """GRU (Cho et al. 2014, arXiv 1406.1078) whose state is zero at FIRST.

    With x_t an input and h the hidden state:

      r = sigmoid(W_r x_t + U_r h_{t-1}),  z = sigmoid(W_z x_t + U_z h_{t-1} + 1)
      n = tanh(W_n x_t + r * (U_n h_{t-1})),  h_t = (1 - z) * n + z * h_{t-1}

    The 1 makes it remember at first, as in the LSTM's forget gate. The reset gate acts
    after its product, so that a row takes one product, not two in turn.
    """

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.output_size = size
        self.state_shapes = ((size,),)
        self.input = initialisers.orthogonal(nn.Linear(input_size, 3 * size), 1.0)
        self.recurrent = nn.Linear(size, 3 * size, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)

    def forward(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """inputs [T, B, F], first bool [T, B] -> [T, B, H], state after the last row.

        As in the LSTM, the input's share of the gates is one product for all T.
        """
        (hidden,) = state
        gates_from_input = self.input(inputs)
        reset, zero = first.unsqueeze(-1), inputs.new_zeros(())
        outputs = []
        for row in range(inputs.shape[0]):
            hidden = torch.where(reset[row], zero, hidden)
            r, z, n = gates_from_input[row].chunk(3, -1)
            u_r, u_z, u_n = self.recurrent(hidden).chunk(3, -1)
            new = torch.tanh(n + torch.sigmoid(r + u_r) * u_n)
            keep = torch.sigmoid(z + u_z + 1.0)
            hidden = (1.0 - keep) * new + keep * hidden
            outputs.append(hidden)
        return torch.stack(outputs), (hidden,)


class _Gate(nn.Module):
    """A GRU as a gate between the stream x and what a submodule says of it, y.

      r = sigmoid(W_r y + U_r x),  z = sigmoid(W_z y + U_z x - b_g)
      g(x, y) = (1 - z) * x + z * tanh(W_g y + U_g (r * x))

    (Parisotto et al. 2019, section 3.2.) b_g is 2 at first, so that a fresh layer is
    close to the identity, and an agent can act on what it sees before it remembers.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.update = nn.Linear(size, 3 * size, bias=False)  # W_r, W_z, W_g
        self.stream = nn.Linear(size, 2 * size, bias=False)  # U_r, U_z
        self.candidate = nn.Linear(size, size, bias=False)  # U_g
        self.bias = nn.Parameter(torch.full((size,), 2.0))  # b_g

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """[..., H], [..., H] -> [..., H]."""
        w_r, w_z, w_g = self.update(y).chunk(3, -1)
        u_r, u_z = self.stream(x).chunk(2, -1)
        r, z = torch.sigmoid(w_r + u_r), torch.sigmoid(w_z + u_z - self.bias)
        return (1.0 - z) * x + z * torch.tanh(w_g + self.candidate(r * x))


class _Attention(nn.Module):
    """Attention of T rows to the W entries before them and to themselves.

    With q, k, v linear in the normalised entries, for each of the heads:

      a_ts = softmax_s(q_t . k_s / sqrt(H / heads) + b_{t-s}),  out_t = sum_s a_ts v_s

    where s goes over the entries that t may see, and b, learned, has one number for
    each head and distance 0..W: the positions are relative.
    """

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self._heads, self._window = heads, window
        self.norm = nn.LayerNorm(size)
        self.query = nn.Linear(size, size)
        # A bias of the keys would add the same to the logits of all s; one of the
        # values is what the output has.
        self.key_value = nn.Linear(size, 2 * size, bias=False)
        self.output = nn.Linear(size, size)
        self.distance_bias = nn.Parameter(torch.zeros(heads, window + 1))

    def forward(self, entries: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """entries [W+T, B, H], visible bool [B, 1, T, W+T] -> [T, B, H]."""
        num_rows = visible.shape[2]
        # `forward`, past the hooks: they compare what layers give row by row, and of
        # these two a step's and an unroll's outputs are of different rows.
        entries = self.norm.forward(entries)
        keys, values = self.key_value.forward(entries).chunk(2, -1)
        queries = self._split(self.query(entries[-num_rows:]))
        queries = queries * queries.shape[-1] ** -0.5
        # The sum is float32, also where the products are bfloat16.
        logits = queries @ self._split(keys).mT + self._distance_logits(num_rows)
        weights = torch.where(visible, logits, -torch.inf).softmax(-1)
        # 0 * NaN is NaN. An entry that is NaN is so as a key too: whoever sees it gets
        # NaN as weights; nobody else may get it from its value.
        attended = weights @ self._split(values).nan_to_num()
        return self.output(attended.permute(2, 0, 1, 3).flatten(2))

    def _split(self, entries: torch.Tensor) -> torch.Tensor:
        """[S, B, H] -> [B, heads, S, H / heads]."""
        return entries.unflatten(-1, (self._heads, -1)).permute(1, 2, 0, 3)

    def _distance_logits(self, num_rows: int) -> torch.Tensor:
        """b_{t-s} as [heads, T, W+T]: each row is the one above it, moved by one."""
        margin = num_rows - 1
        padded = functional.pad(self.distance_bias.flip(-1), (margin, margin))
        return padded.unfold(-1, self._window + num_rows, 1).flip(1)


class _GTrXLLayer(nn.Module):
    """Attention and an MLP, both with their norm at the entrance and a gate behind."""

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.attention = _Attention(size, heads, window)
        self.attention_gate = _Gate(size)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size),
            nn.Linear(size, 4 * size),
            nn.ReLU(),
            nn.Linear(4 * size, size),
        )
        self.mlp_gate = _Gate(size)

    def forward(
        self, rows: torch.Tensor, entries: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """rows [T, B, H], the last of entries [W+T, B, H] -> [T, B, H]."""
        attended = torch.relu(self.attention(entries, visible))
        rows = self.attention_gate(rows, attended)
        return self.mlp_gate(rows, torch.relu(self.mlp(rows)))


class GTrXLCore(nn.Module):
    """Gated Transformer-XL (Parisotto et al. 2019, arXiv 1910.06764) with a window.

    Layer l of L makes E^{l+1} of E^l, where E^0 is linear in the inputs (sections 3.1
    and 3.2 of the paper; each g is a gate of its own):

      Y_t       = g(E^l_t, relu(attention(LN(E^l_{t-W..t}))))
      E^{l+1}_t = g(Y_t, relu(MLP(LN(Y_t))))

    In every layer, row t sees itself and the last W rows of its episode, whether they
    are of this call or remembered. So an output depends on at most L * W rows back.

    The state is the memory [B, W, L, H], E^0..E^{L-1} of the last W rows, oldest first,
    zero where the episode had not begun; and [B, 1], how many of them there are. What
    an unroll begins with was made by the parameters that acted, and has no gradient.

    Unlike the paper: positions are one learned bias for each head and distance.
    """

    def __init__(
        self, input_size: int, size: int, *, layers: int, heads: int, window: int
    ) -> None:
        super().__init__()
        self.output_size = size
        self.state_shapes = ((window, layers, size), (1,))
        self._window = window
        self.embedding = nn.Linear(input_size, size)
        self.layers = nn.ModuleList(
            _GTrXLLayer(size, heads, window) for _ in range(layers)
        )
        initialisers.orthogonal(self, 1.0)

    def forward(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """inputs [T, B, F], first bool [T, B] -> [T, B, H], state after the last row.

        All rows at once: what they may see of each other and of the memory is a mask.
        """
        memory, count = state
        num_rows = first.shape[0]
        visible = _visible(first, count, self._window)
        memory = _where(visible[0, : self._window], memory.transpose(0, 1))
        mask = visible.permute(2, 0, 1).unsqueeze(1)
        rows, kept = self.embedding(inputs), []
        for layer, remembered in zip(self.layers, memory.unbind(2), strict=True):
            entries = torch.cat([remembered, rows])
            kept.append(entries[num_rows:])
            rows = layer(rows, entries, mask)
        seen = visible[-1, num_rows:]
        memory = _where(seen, torch.stack(kept, 2)).transpose(0, 1)
        return rows, (memory, seen.sum(0).unsqueeze(-1).to(count.dtype))


def _visible(first: torch.Tensor, count: torch.Tensor, window: int) -> torch.Tensor:
    """Whether row t may see entry s: bool [T, W+T, B].

    Entries are those of the memory, oldest first, of which the last `count` [B, 1] are
    of the episode that goes on, and then the rows.
    """
    num_rows, device = first.shape[0], first.device
    episodes = first.cumsum(0)  # 0 goes on from before row 0
    ages = torch.arange(window, 0, -1, device=device).unsqueeze(-1)
    remembered = torch.where(ages <= count.squeeze(-1), 0, -1)
    same = episodes.unsqueeze(1) == torch.cat([remembered, episodes])
    times = torch.arange(-window, num_rows, device=device)
    distances = times[window:].unsqueeze(-1) - times
    return same & ((distances >= 0) & (distances <= window)).unsqueeze(-1)


def _where(there: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """Zero for entries [W, B, L, H] that are not there [W, B], whatever they hold."""
    return torch.where(there[..., None, None], entries, entries.new_zeros(()))


def make(config: Any, input_size: int) -> Core:
    """The core that `config.network` names.

    Raises:
      BadInput: there is no such core, or it does not keep the contract.
    """
    core_settings.check(config)
    name, size = config.core, config.core_size
    if ":" in name:
        return _custom(name, input_size, config)
    if name == "gtrxl":
        return GTrXLCore(input_size, size, **config.gtrxl)
    if name == "gru":
        return GRUCore(input_size, size)
    return LSTMCore(input_size, size) if name == "lstm" else NoCore(input_size)


def _custom(name: str, input_size: int, config: Any) -> Core:
    """A core of the user's own, tried once."""
    factory = factories.load("network.core", name, "(input_size, config) -> Module")
    core = factory(input_size, config)
    for attribute in ("parameters", "output_size", "state_shapes"):
        if not hasattr(core, attribute):
            raise errors.BadInput(
                f"network.core ({name!r}) gives a core without {attribute}: see"
                " impala_mp.cores.Core for what it has to have."
            )
    if not all(isinstance(shape, (tuple, list)) for shape in core.state_shapes):
        raise errors.BadInput(
            f"network.core ({name!r}) has the state_shapes {core.state_shapes}, which"
            " must be a shape for each leaf of the state, such as ((8,),)."
        )
    state = tuple(torch.zeros(2, *shape) for shape in core.state_shapes)
    first = torch.ones(3, 2, dtype=torch.bool)
    with torch.no_grad():
        result = core(torch.zeros(3, 2, input_size), first, state)
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise errors.BadInput(
            f"network.core ({name!r}) gives {type(result).__name__}, and has to give"
            " two things: outputs [T, B, H], and the state after the last row."
        )
    output, after = result
    expected = [(3, 2, core.output_size), *(tuple(leaf.shape) for leaf in state)]
    actual = [tuple(leaf.shape) for leaf in (output, *after)]
    if actual != expected:
        raise errors.BadInput(
            f"network.core ({name!r}) gives, for 3 rows of 2 trajectories, output and"
            f" state of the shapes {actual}, which should be {expected}."
        )
    return core
