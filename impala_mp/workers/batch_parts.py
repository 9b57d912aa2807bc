"""Parts of a batch: minibatches, micro-batches, and shares of several ranks.

Each minibatch has a step of the optimizer. Gradient, metrics and moments of
micro-batches and of the shares of ranks add up to those of the batch, so that an update
needs the memory of a part, and ranks can take a part each.

The sum over ranks is one call. Float32 would round the float64 moments. Each rank
writes its own as whole numbers of 16 bits into places where the others have 0: the sum
brings every rank all of them, exactly, and they are added up in the order of the ranks.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from impala_mp import nest, types

Work = tuple[types.Trajectory, types.Sample | None]  # a batch, and its sample
# A micro-batch, its sample and the algorithm's reference.
Part = tuple[types.Trajectory, types.Sample | None, Any]

_SHIFTS = (0, 16, 32, 48)  # of the digits of a float64
_MASK = 2**16 - 1


class Peers(Protocol):
    """The ranks that learn together, as `transport.ranks.Group`."""

    rank: int
    size: int

    def sum(self, tensor: torch.Tensor) -> None:
        """Replaces a tensor by its sum over the ranks."""

    def gather(self, tensor: torch.Tensor, found: torch.Tensor) -> None:
        """Writes the tensors of all ranks into `found`, by rank."""


def tail_size(num_metrics: int, num_moments: int, num_ranks: int) -> int:
    """Returns the float32 numbers beside the gradient."""
    return num_metrics + 1 + len(_SHIFTS) * num_moments * num_ranks


class RankSum:
    """Sums one optimizer step over the ranks, in place."""

    def __init__(
        self, peers: Peers, whole: torch.Tensor, num_trainable: int, num_metrics: int
    ) -> None:
        """`whole` is gradient and tail; see `FlatParameters.attach_gradients`."""
        # Makes each exchange: at once, unless the update is replayed as graphs.
        self.exchange: Callable[[Callable[[], None]], None] = lambda call: call()
        self._peers, self._whole = peers, whole
        self._gradient = whole[:num_trainable]
        tail = whole[num_trainable:]
        self._metrics, self._guilty = tail[:num_metrics], tail[num_metrics]
        self._digits = tail[num_metrics + 1 :].view(peers.size, -1, len(_SHIFTS))
        self._shifts = torch.tensor(_SHIFTS, device=whole.device)
        # Of an update: whether this rank's part was not finite, and most in a step.
        self.guilt = torch.zeros(2, device=whole.device)
        # 1: the parts of all ranks are spoiled by something that they share.
        self._spoiled = torch.zeros((), device=whole.device)

    def begin(self) -> None:
        """Begins an update."""
        self.guilt.zero_()
        self._spoiled.zero_()

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns the tensors of all ranks, by rank: [ranks, *shape].

        Those that are not finite would spoil what all ranks compute from them.
        """
        mine = tensor.contiguous()
        found = mine.new_empty((self._peers.size, *mine.shape))
        self.exchange(lambda: self._peers.gather(mine, found))
        bad = (~found.isfinite()).flatten(1).any(1).float()
        self.guilt.clamp_(min=torch.stack([bad[self._peers.rank], bad.sum()]))
        self._spoiled.clamp_(min=bad.amax())
        return found

    def add_up(
        self, metrics: torch.Tensor, moments: torch.Tensor, total: int
    ) -> torch.Tensor:
        """Sums gradient and `moments` over the ranks in place; returns summed metrics.

        Args:
          total: index of the loss among the metrics.
        """
        finite = torch.isfinite(self._gradient.norm() + metrics[total])
        guilty = 1.0 - finite.float()
        self._metrics.copy_(metrics)
        self._guilty.copy_(guilty)
        self._digits.zero_()
        self._digits[self._peers.rank] = self._split(moments)
        self.exchange(lambda: self._peers.sum(self._whole))
        new = torch.stack([guilty, self._guilty]) * (1.0 - self._spoiled)
        self.guilt.clamp_(min=new)
        moments.copy_(self._joined().view(self._peers.size, *moments.shape).sum(0))
        return self._metrics.clone()

    def _split(self, moments: torch.Tensor) -> torch.Tensor:
        """float64 [...] -> float32 [numbers, 4], whole numbers below 2^16."""
        words = moments.flatten().view(torch.int64).unsqueeze(-1)
        return ((words >> self._shifts) & _MASK).float()

    def _joined(self) -> torch.Tensor:
        """Returns the float64 numbers of all ranks, by rank: [ranks, numbers]."""
        words = (self._digits.long() << self._shifts).sum(-1)
        joined: Any = words.view(torch.float64)
        return joined  # type: ignore[no-any-return]


def split(
    batch: types.Trajectory, sample: types.Sample | None, parts: int
) -> list[Work]:
    """Returns micro-batches: views along B."""
    if parts == 1:
        return [(batch, sample)]
    size = batch.shape[1] // parts

    def part(start: int) -> Work:
        def cut(axis: int, leaf: torch.Tensor) -> torch.Tensor:
            return leaf.narrow(axis, start, size)

        words = None
        if sample is not None:
            words = types.Sample(*(cut(0, leaf) for leaf in sample))
        cut_batch = nest.map_batch(cut, batch._replace(before=()))
        return cut_batch._replace(before=_cut_before(batch, start, size)), words

    return [part(index * size) for index in range(parts)]


def steps(
    batch: types.Trajectory, parts: list[Part], passes: int, count: int, by_row: bool
) -> Iterator[list[Part]]:
    """Yields the micro-batches of each optimizer step of an update.

    In each pass, each transition is in one of `count` minibatches, drawn at random.
    Those have as many micro-batches as the batch, without a sample.

    Args:
      parts: the micro-batches of `batch`.
      by_row: draw single transitions instead of columns. The loss of one must depend on
        no other row: the agent has no core state, and the reference has the targets.
    """
    if count == 1:
        yield from itertools.repeat(parts, passes)
        return
    reference, *others = (each for _, _, each in parts)
    if others:
        reference = nest.map_structure(
            lambda *leaves: torch.cat(leaves, 1), reference, *others
        )
    rows, columns = batch.shape
    device = batch.time_step.step_type.device
    take = _rows if by_row else _columns
    for _ in range(passes):
        # Not randperm, which a CUDA graph cannot replay.
        number = torch.rand(rows * columns if by_row else columns, device=device)
        shares = take(batch, reference, number.argsort().view(count * len(parts), -1))
        for _ in range(count):
            yield list(itertools.islice(shares, len(parts)))


def _columns(
    batch: types.Trajectory, reference: Any, shares: torch.Tensor
) -> Iterator[Part]:
    """Returns a part for each row of `shares`, of these trajectories."""

    def part(columns: torch.Tensor) -> Part:
        def take(axis: int, leaf: torch.Tensor) -> torch.Tensor:
            return leaf.index_select(axis, columns)

        own = nest.map_structure(lambda leaf: take(1, leaf), reference)
        return nest.map_batch(take, batch), None, own

    return map(part, shares.unbind())


def _rows(
    batch: types.Trajectory, reference: Any, shares: torch.Tensor
) -> Iterator[Part]:
    """Returns a part for each row of `shares`, of transitions without an order.

    Those are places in [T * B]. They become one column, whose row T is a filler. What a
    loss does not read of them is left out. One call a tensor copies all shares.
    """

    def columns(leaf: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        taken = leaf.flatten(0, 1).index_select(0, places.flatten())
        return taken.view(*places.shape, 1, *leaf.shape[2:])

    filled = torch.cat([shares, shares[:, :1]], 1)
    cut = batch._replace(
        time_step=nest.map_structure(lambda x: columns(x, filled), batch.time_step),
        agent_output=nest.map_structure(
            lambda x: columns(x, shares), batch.agent_output
        ),
        **dict.fromkeys(("episode_end", "parameter_version", "header"), ()),
    )
    reference = nest.map_structure(lambda leaf: columns(leaf, shares), reference)

    def part(index: int) -> Part:
        own = nest.map_structure(lambda leaf: leaf[index], (cut, reference))
        return own[0], None, own[1]

    return map(part, range(len(shares)))


def _cut_before(batch: types.Trajectory, start: int, size: int) -> types.Nest:
    """Returns the predecessors of `size` columns, or () if none of them has any."""
    if not batch.before:
        return ()
    num_fresh = batch.shape[1] - len(batch.before.there)
    first, end = max(start, num_fresh) - num_fresh, start + size - num_fresh
    if end <= first:
        return ()

    def cut(axis: int, leaf: torch.Tensor) -> torch.Tensor:
        return leaf.narrow(axis, first, end - first)

    return nest.map_batch(cut, batch.before, axes=types.BATCH_AXIS.before)
