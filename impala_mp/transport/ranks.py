"""Exchange between the learner ranks of a run, by torch.distributed on loopback.

No other module imports torch.distributed, and this one does so only where a run has
several ranks. A rank whose peers are lost, or do not answer, is ended by the
supervisor: no time-out here is relied on.
"""

import contextlib
import datetime
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from impala_mp.transport import control_block

_HOST = "127.0.0.1"
_NEVER = datetime.timedelta(days=1)
_JOIN = datetime.timedelta(minutes=10)  # until all ranks of a generation are there
_THREADS = 2  # of gloo


class PeersLost(Exception):
    """Another rank has ended, and no update can be made without it."""


class Rendezvous:
    """Place where the ranks of each generation meet. The supervisor holds it."""

    def __init__(self) -> None:
        import torch.distributed as distributed

        # A store that binds the port itself would listen on every network.
        listener = socket.create_server((_HOST, 0))
        self.port: int = listener.getsockname()[1]
        self._store = distributed.TCPStore(
            _HOST,
            self.port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )


class Group:
    """One rank's end of the exchange.

    Every method is called by all ranks in the same order, and returns the same on all
    of them. Tensors are on the learner's device.
    """

    def __init__(
        self,
        port: int,
        generation: str,
        rank: int,
        size: int,
        row: control_block.ProcessRow,
        device: str = "cpu",
    ) -> None:
        """Waits for the other ranks of `generation`, which no other group may have."""
        import torch.distributed as distributed

        self._distributed = distributed
        self.rank, self.size, self._row = rank, size, row
        with self._waiting():
            store = distributed.PrefixStore(
                generation,
                distributed.TCPStore(
                    _HOST, port, timeout=_JOIN, wait_for_workers=False
                ),
            )
            # The host's own, so that words never wait for what a GPU has queued.
            self._words = _gloo(distributed, store, rank, size)
            self._tensors = self._words
            if torch.device(device).type == "cuda":
                self._tensors = _nccl(distributed, store, rank, size)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Reports that it waits for its peers, which is no silence while they work.

        Raises:
          PeersLost: one of them has ended.
        """
        state = self._row.state
        self._row.beat(control_block.State.WAITING_FOR_RANKS)
        try:
            yield
        except RuntimeError as error:
            raise PeersLost(f"another rank of the learner is gone: {error}") from error
        self._row.beat(state)

    def sum(self, tensor: torch.Tensor) -> None:
        """Replaces a tensor by its sum over the ranks; NaN and inf go through."""
        with self._waiting():
            self._tensors.allreduce([tensor]).wait()

    def gather(self, tensor: torch.Tensor, found: torch.Tensor) -> None:
        """Writes the tensors of all ranks into `found`, by rank: [size, *shape]."""
        with self._waiting():
            self._tensors.allgather([list(found.unbind())], [tensor]).wait()

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Replaces a tensor by that of rank 0."""
        options = self._distributed.BroadcastOptions()
        options.rootRank, options.rootTensor = 0, 0
        with self._waiting():
            self._tensors.broadcast([tensor], options).wait()

    def exchange(self, words: Sequence[float]) -> list[list[float]]:
        """Returns the words of all ranks, by rank, exactly. All have as many."""
        mine = torch.tensor(words, dtype=torch.float64)
        found = mine.new_empty((self.size, len(words)))
        with self._waiting():
            self._words.allgather([list(found.unbind())], [mine]).wait()
        rows: list[list[float]] = found.tolist()
        return rows


def _gloo(distributed: Any, store: Any, rank: int, size: int) -> Any:
    kind = distributed.ProcessGroupGloo
    options = kind._Options()
    options._devices = [kind.create_device(hostname=_HOST)]
    options._timeout, options._threads = _NEVER, _THREADS
    return kind(store, rank, size, options)


def _nccl(distributed: Any, store: Any, rank: int, size: int) -> Any:
    kind = distributed.ProcessGroupNCCL
    options = kind.Options()
    options._timeout = _NEVER
    return kind(distributed.PrefixStore("nccl", store), rank, size, options)
