"""Frozen parameters of a league: one learner writes them, all actors read them.

Each slot holds one snapshot. Its version word is 0 while the slot is written, so a
writer that is killed midway leaves a slot without a snapshot. The parameters of a
version never change. A reader copies, and believes the copy only if the version word
held still.
"""

from typing import NamedTuple

import numpy as np

from impala_mp import specs
from impala_mp.transport import barrier, parameter_store, shared_memory

_LINE = 8  # int64 words of a cache line
_VERSION, _CHECKSUM = 0, 1  # words of each slot's line


class Entry(NamedTuple):
    """One snapshot that may be read."""

    version: int
    slot: int
    weight: float  # of its draws; they do not add up to 1


class LeagueMemory(shared_memory.InMemory):
    """Slots of `num_bytes` bytes: one writer, many readers."""

    def __init__(
        self,
        num_slots: int,
        num_bytes: int,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        """Allocates the memory. With 0 slots nothing can be written to it."""
        lines = max(1, num_slots)
        spec = {
            "words": specs.array_spec((lines, _LINE), np.int64),
            "weights": specs.array_spec((lines, _LINE), np.float64),
            "buffers": specs.array_spec((num_slots, num_bytes), np.uint8),
        }
        self._attach(shared_memory.SharedArrays(spec, file))

    def _attach(self, memory: shared_memory.SharedArrays) -> None:
        self._memory = memory
        self._words = memory.arrays["words"].data.cast("B").cast("q")
        self._weights = memory.arrays["weights"].data.cast("B").cast("d")
        self._buffers = memory.arrays["buffers"]
        self._barrier = barrier.make_barrier()
        self.num_slots, self.num_bytes = self._buffers.shape

    def entries(self) -> list[Entry]:
        """Returns the snapshots that are whole, the oldest first."""
        found = (
            Entry(self._words[_LINE * slot + _VERSION], slot, self.weight(slot))
            for slot in range(self.num_slots)
        )
        return sorted(entry for entry in found if entry.version)

    # The learner's side.

    def write(self, slot: int, version: int, source: np.ndarray) -> None:
        """Writes a snapshot, uint8 [num_bytes], in place of the one in the slot.

        Its weight is 0 until `weigh`. No version is written twice.
        """
        line = _LINE * slot
        self.clear(slot)
        np.copyto(self._buffers[slot], source)
        self._words[line + _CHECKSUM] = parameter_store.checksum(self._buffers[slot])
        self._barrier()
        self._words[line + _VERSION] = version

    def clear(self, slot: int) -> None:
        """Leaves no snapshot in the slot."""
        self._words[_LINE * slot + _VERSION] = 0
        self._weights[_LINE * slot] = 0.0
        self._barrier()

    def weigh(self, slot: int, weight: float) -> None:
        """Sets the weight with which the slot's snapshot is drawn."""
        self._weights[_LINE * slot] = weight

    # The actors' side.

    def weight(self, slot: int) -> float:
        """Returns the weight of the slot's snapshot."""
        return self._weights[_LINE * slot]

    def read(self, entry: Entry, into: np.ndarray) -> bool:
        """Copies a snapshot into `into`, uint8 [num_bytes].

        Returns:
          Whether the slot held that version throughout. If not, `into` is undefined.

        Raises:
          RuntimeError: the checksum does not match.
        """
        word = _LINE * entry.slot + _VERSION
        if self._words[word] != entry.version:
            return False
        self._barrier()
        np.copyto(into, self._buffers[entry.slot])
        expected = self._words[_LINE * entry.slot + _CHECKSUM]
        self._barrier()
        if self._words[word] != entry.version:
            return False
        if parameter_store.checksum(into) != expected:
            raise RuntimeError(f"snapshot {entry.version} of the league is torn")
        return True
