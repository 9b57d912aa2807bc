"""Requests for inference: the rows of slots that wait for an action.

Each seat is half of an actor's environments, as one policy plays them. The actor
writes `slot` and `row`, then increments `requested`. The server writes the agent's
output of the row, then `version`, then `answered`. Each word has one writer; doorbells
are hints.
"""

from typing import Any, NamedTuple

import numpy as np

from impala_mp import specs
from impala_mp.transport import barrier, doorbell, shared_memory

SEATS = 2  # halves of an actor's environments, stepped in turn
START_OVER = -1  # an answer: the policy that began the unroll is gone

_LINE = 8
_REQUESTED, _SLOT, _ROW = 0, 1, 2  # the actor's
_ANSWERED, _VERSION = _LINE, _LINE + 1  # the server's


class Request(NamedTuple):
    """Row that a seat waits for."""

    number: int
    slot: int
    row: int


class Seat:
    """Words of one seat, with the methods of its actor and of the server."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words.data.cast("B").cast("q")
        self._barrier = barrier.make_barrier()

    # The actor's side.

    def request(self, slot: int, row: int) -> None:
        self._words[_SLOT], self._words[_ROW] = slot, row
        self._barrier()
        self._words[_REQUESTED] += 1

    def answer(self) -> int:
        """Returns the version that acted, START_OVER, or 0 while no answer is there."""
        if self._words[_ANSWERED] != self._words[_REQUESTED]:
            return 0
        self._barrier()
        return self._words[_VERSION]

    # The server's side.

    def pending(self) -> Request | None:
        """Returns the request without an answer, or None."""
        number = self._words[_REQUESTED]
        if number == self._words[_ANSWERED]:
            return None
        self._barrier()
        request = Request(number, self._words[_SLOT], self._words[_ROW])
        self._barrier()
        # A new incarnation of the actor may be writing another request right now.
        return request if self._words[_REQUESTED] == number else None

    def reply(self, request: Request, version: int) -> None:
        self._words[_VERSION] = version
        self._barrier()
        self._words[_ANSWERED] = request.number


class InferenceBlock(shared_memory.InMemory):
    """Seats of all actors, a pair for each policy, and the server's doorbell."""

    def __init__(
        self,
        num_actors: int,
        num_policies: int = 1,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        shape = num_policies, num_actors, SEATS, 2 * _LINE
        spec = specs.array_spec(shape, np.int64)
        self._attach(shared_memory.SharedArrays(spec, file), doorbell.Doorbell())

    def _attach(
        self, memory: shared_memory.SharedArrays, bell: doorbell.Doorbell
    ) -> None:
        self._memory, self.server_doorbell = memory, bell

    def seats(self, actor: int, policy: int = 0) -> list[Seat]:
        """Returns the seats of an actor's halves, for one of the policies."""
        return [Seat(words) for words in self._memory.arrays[policy, actor]]

    def close(self) -> None:
        super().close()
        self.server_doorbell.close()

    def __getstate__(self) -> tuple[Any, ...]:
        return self._memory, self.server_doorbell
