"""Recurrent cores: what an agent remembers between the rows of an episode."""

from typing import Any, Protocol

import torch
from torch import nn

from impala_mp import initialisers

CoreState = tuple[torch.Tensor, ...]


class Core(Protocol):
    """What stands between torso and heads.

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


def make(config: Any, input_size: int) -> Core:
    """The core that `config.network` names."""
    if config.core == "lstm":
        return LSTMCore(input_size, config.core_size)
    return NoCore(input_size)
