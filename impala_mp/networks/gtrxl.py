"""Gated Transformer-XL core (Parisotto et al. 2019, arXiv 1910.06764)."""

import torch
from torch import nn
from torch.nn import functional

from impala_mp.networks import activations, initialisers, linear


class _Gate(nn.Module):
    """A GRU as a gate between the stream x and a submodule's output y.

      r = sigmoid(W_r y + U_r x),  z = sigmoid(W_z y + U_z x - b_g)
      g(x, y) = (1 - z) * x + z * tanh(W_g y + U_g (r * x))

    (Parisotto et al. 2019, section 3.2.) b_g starts at 2, so that a fresh layer is
    close to the identity. A fresh agent then acts on its observation before it learns
    to use its memory.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.update = linear.Linear(size, 3 * size, bias=False)  # W_r, W_z, W_g
        self.stream = linear.Linear(size, 2 * size, bias=False)  # U_r, U_z
        self.candidate = linear.Linear(size, size, bias=False)  # U_g
        self.bias = nn.Parameter(torch.full((size,), 2.0))  # b_g

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """[..., H], [..., H] -> [..., H]."""
        w_r, w_z, w_g = self.update(y).chunk(3, -1)
        u_r, u_z = self.stream(x).chunk(2, -1)
        r, z = torch.sigmoid(w_r + u_r), torch.sigmoid(w_z + u_z - self.bias)
        return (1.0 - z) * x + z * activations.tanh(w_g + self.candidate(r * x))


class _Attention(nn.Module):
    """Attention of T rows to the W entries before them and to themselves.

    With q, k, v linear in the normalised entries, per head:

      a_ts = softmax_s(q_t . k_s / sqrt(H / heads) + b_{t-s}),  out_t = sum_s a_ts v_s

    where s runs over the entries that t may see. b is learned, with one number per head
    and distance 0..W: positions are relative.
    """

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self._heads, self._window = heads, window
        self.norm = nn.LayerNorm(size)
        self.query = linear.Linear(size, size)
        # A bias of the keys would add the same number to the logits of all s. A bias of
        # the values is redundant: the output layer has one.
        self.key_value = linear.Linear(size, 2 * size, bias=False)
        self.output = linear.Linear(size, size)
        self.distance_bias = nn.Parameter(torch.zeros(heads, window + 1))

    def forward(self, entries: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """entries [W+T, B, H], visible bool [B, 1, T, W+T] -> [T, B, H]."""
        num_rows = visible.shape[2]
        # `forward` skips the hooks, which compare layer outputs row by row. The outputs
        # of these two layers belong to other rows in a step than in an unroll.
        entries = self.norm.forward(entries)
        keys, values = self.key_value.forward(entries).chunk(2, -1)
        queries = self._split(self.query(entries[-num_rows:]))
        queries = queries * queries.shape[-1] ** -0.5
        # The sum is float32, even if the products are bfloat16.
        logits = queries @ self._split(keys).mT + self._distance_logits(num_rows)
        weights = torch.where(visible, logits, -torch.inf).softmax(-1)
        # 0 * NaN is NaN. A NaN entry also has a NaN key, so the rows that see it get
        # NaN weights. No other row may get NaN from its value.
        attended = weights @ self._split(values).nan_to_num()
        return self.output(attended.permute(2, 0, 1, 3).flatten(2))

    def _split(self, entries: torch.Tensor) -> torch.Tensor:
        """[S, B, H] -> [B, heads, S, H / heads]."""
        return entries.unflatten(-1, (self._heads, -1)).permute(1, 2, 0, 3)

    def _distance_logits(self, num_rows: int) -> torch.Tensor:
        """Returns b_{t-s} as [heads, T, W+T]; each row shifts the previous one by 1."""
        margin = num_rows - 1
        padded = functional.pad(self.distance_bias.flip(-1), (margin, margin))
        return padded.unfold(-1, self._window + num_rows, 1).flip(1)


class _GTrXLLayer(nn.Module):
    """Attention and an MLP, each with a norm before it and a gate after it."""

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.attention = _Attention(size, heads, window)
        self.attention_gate = _Gate(size)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size),
            linear.Linear(size, 4 * size),
            nn.ReLU(),
            linear.Linear(4 * size, size),
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

    Layer l of L maps E^l to E^{l+1}. E^0 is linear in the inputs (sections 3.1 and 3.2
    of the paper; each g is a separate gate):

      Y_t       = g(E^l_t, relu(attention(LN(E^l_{t-W..t}))))
      E^{l+1}_t = g(Y_t, relu(MLP(LN(Y_t))))

    In every layer, row t sees itself and the last W rows of its episode, of this call
    or from memory. So an output depends on at most the last L * W rows.

    The state has two leaves. The memory [B, W, L, H] holds E^0..E^{L-1} of the last W
    rows, oldest first, with zeros before the episode began. The count [B, 1] is the
    number of rows in it. An unroll's initial memory comes from the parameters that
    acted, and has no gradient.

    Unlike the paper, positions are one learned bias per head and distance.
    """

    def __init__(
        self, input_size: int, size: int, *, layers: int, heads: int, window: int
    ) -> None:
        super().__init__()
        self.output_size = size
        self.state_shapes = ((window, layers, size), (1,))
        self._window = window
        self.embedding = linear.Linear(input_size, size)
        self.layers = nn.ModuleList(
            _GTrXLLayer(size, heads, window) for _ in range(layers)
        )
        initialisers.orthogonal(self, 1.0)

    def forward(
        self, inputs: torch.Tensor, first: torch.Tensor, state: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """inputs [T, B, F], first bool [T, B] -> [T, B, H], state after the last row.

        Computes all rows at once; a mask gives the entries that each row may see.
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
    """Returns whether row t may see entry s: bool [T, W+T, B].

    Entries are the memory, oldest first, then the rows. The last `count` [B, 1] entries
    of the memory belong to the current episode.
    """
    num_rows, device = first.shape[0], first.device
    episodes = first.cumsum(0)  # 0: the episode began before row 0
    ages = torch.arange(window, 0, -1, device=device).unsqueeze(-1)
    remembered = torch.where(ages <= count.squeeze(-1), 0, -1)
    same = episodes.unsqueeze(1) == torch.cat([remembered, episodes])
    times = torch.arange(-window, num_rows, device=device)
    distances = times[window:].unsqueeze(-1) - times
    return same & ((distances >= 0) & (distances <= window)).unsqueeze(-1)


def _where(there: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """Sets entries [W, B, L, H] to zero unless `there`, bool [W, B]; even NaN ones."""
    return torch.where(there[..., None, None], entries, entries.new_zeros(()))
