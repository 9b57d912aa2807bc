"""Recurrent cores: the memory of an agent between the rows of an episode."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn

from impala_mp import errors
from impala_mp.config import user_code, validation
from impala_mp.networks import activations, gtrxl, initialisers, linear

CoreState = tuple[torch.Tensor, ...]


class Core(Protocol):
    """Module between torso and heads.

    T calls with one row each return the outputs and the state of one call with T rows.
    A row at FIRST does not depend on earlier rows or state, even if they are NaN. A
    state of zeros means that no row has been seen.
    """

    @property
    def output_size(self) -> int:
        """H, units."""

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the state's leaves, float32, without the batch dimension."""

    def __call__(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """Maps inputs [T, B, F] to outputs [T, B, H] and the state after the last row.

        Args:
          first: bool [T, B], True where an episode begins.
          state: leaves [B, *shape], before row 0.
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


def _rows(
    gates: torch.Tensor, first: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (gates [B, G], reset [B, 1]) row by row.

    The gradient of `unbind` is one stack. That of an index is as large as all rows, and
    zero but for one of them: half of the time of an update with T = 32.
    """
    return zip(gates.unbind(0), first.unsqueeze(-1).unbind(0), strict=True)


class LSTMCore(nn.Module):
    """LSTM (Hochreiter and Schmidhuber 1997) whose state is zero at FIRST."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.output_size = size
        self.state_shapes = ((size,), (size,))
        self.input = initialisers.orthogonal(linear.Linear(input_size, 4 * size), 1.0)
        self.recurrent = linear.Linear(size, 4 * size, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)

    def forward(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """inputs [T, B, F], first bool [T, B] -> [T, B, H], state after the last row.

        The input's share of the gates is one product for all T. Only the recurrent
        share is computed row by row.
        """
        hidden, cell = state
        gates_from_input = self.input(inputs)
        # torch.where, not a product: NaN must not survive a reset.
        zero, outputs = inputs.new_zeros(()), []
        for from_input, reset in _rows(gates_from_input, first):
            hidden = torch.where(reset, zero, hidden)
            cell = torch.where(reset, zero, cell)
            gates = from_input + self.recurrent(hidden)
            i, f, g, o = gates.chunk(4, -1)
            new = torch.sigmoid(i) * activations.tanh(g)
            cell = torch.sigmoid(f + 1.0) * cell + new
            hidden = torch.sigmoid(o) * activations.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs), (hidden, cell)


class GRUCore(nn.Module):
    """GRU (Cho et al. 2014, arXiv 1406.1078) whose state is zero at FIRST.

    With x_t an input and h the hidden state:

      r = sigmoid(W_r x_t + U_r h_{t-1}),  z = sigmoid(W_z x_t + U_z h_{t-1} + 1)
      n = tanh(W_n x_t + r * (U_n h_{t-1})),  h_t = (1 - z) * n + z * h_{t-1}

    The 1 makes a fresh core remember, as in the LSTM's forget gate. The reset gate
    acts after its product, so that a row takes one product instead of two.
    """

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.output_size = size
        self.state_shapes = ((size,),)
        self.input = initialisers.orthogonal(linear.Linear(input_size, 3 * size), 1.0)
        self.recurrent = linear.Linear(size, 3 * size, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)

    def forward(
        self, inputs: torch.Tensor, first: torch.Tensor, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """inputs [T, B, F], first bool [T, B] -> [T, B, H], state after the last row.

        As in the LSTM, the input's share of the gates is one product for all T.
        """
        (hidden,) = state
        gates_from_input = self.input(inputs)
        zero, outputs = inputs.new_zeros(()), []
        for from_input, reset in _rows(gates_from_input, first):
            hidden = torch.where(reset, zero, hidden)
            r, z, n = from_input.chunk(3, -1)
            u_r, u_z, u_n = self.recurrent(hidden).chunk(3, -1)
            new = activations.tanh(n + torch.sigmoid(r + u_r) * u_n)
            keep = torch.sigmoid(z + u_z + 1.0)
            hidden = (1.0 - keep) * new + keep * hidden
            outputs.append(hidden)
        return torch.stack(outputs), (hidden,)


def make(settings: Any, input_size: int) -> Core:
    """Makes the core named in `config.network`.

    Raises:
      BadInput: there is no such core, or it breaks the contract.
    """
    validation.check_core(settings)
    name, size = settings.core, settings.core_size
    if ":" in name:
        return _custom(name, input_size, settings)
    if name == "gtrxl":
        return gtrxl.GTrXLCore(input_size, size, **settings.gtrxl)
    if name == "gru":
        return GRUCore(input_size, size)
    return LSTMCore(input_size, size) if name == "lstm" else NoCore(input_size)


def _custom(name: str, input_size: int, settings: Any) -> Core:
    """Makes a custom core and tries it once."""
    factory = user_code.load("network.core", name, "(input_size, config) -> Module")
    core = factory(input_size, settings)
    for attribute in ("parameters", "output_size", "state_shapes"):
        if not hasattr(core, attribute):
            raise errors.BadInput(
                f"network.core ({name!r}) returns a core without {attribute}. It must"
                f" have all parts of impala_mp.networks.cores.Core. Add {attribute}."
            )
    if not all(isinstance(shape, (tuple, list)) for shape in core.state_shapes):
        raise errors.BadInput(
            f"network.core ({name!r}) has state_shapes {core.state_shapes}. It must be"
            " a tuple of shapes, one per leaf of the state. Set it, for example, to"
            " ((8,),)."
        )
    state = tuple(torch.zeros(2, *shape) for shape in core.state_shapes)
    first = torch.ones(3, 2, dtype=torch.bool)
    with torch.no_grad():
        result = core(torch.zeros(3, 2, input_size), first, state)
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise errors.BadInput(
            f"network.core ({name!r}) returns {type(result).__name__}. It must return"
            " a pair. Return outputs [T, B, H] and the state after the last row."
        )
    output, after = result
    expected = [(3, 2, core.output_size), *(tuple(leaf.shape) for leaf in state)]
    actual = [tuple(leaf.shape) for leaf in (output, *after)]
    if actual != expected:
        raise errors.BadInput(
            f"network.core ({name!r}) returns output and state of shapes {actual}, for"
            f" 3 rows of 2 trajectories. They must be {expected}. Correct output_size"
            " or state_shapes."
        )
    return core
