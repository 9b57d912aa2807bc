"""Ring of rows of named numbers from one process to another: none is lost or torn.

`head` counts the rows that the writer has announced, `tail` those that the reader has
taken. Each has one writer. A row that a killed writer left half-written was not
announced.
"""

from typing import Any

import numpy as np

from impala_mp import specs
from impala_mp.transport import barrier, shared_memory

_HEAD, _TAIL, _WORDS = 0, 8, 16  # int64 words: head and tail on cache lines apart


class RecordRing(shared_memory.InMemory):
    """float64 values by name. One writer, one reader."""

    def __init__(
        self,
        names: tuple[str, ...],
        capacity: int = 8,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        spec = {
            "words": specs.array_spec((_WORDS,), np.int64),
            "rows": specs.array_spec((capacity, len(names)), np.float64),
        }
        self._attach(shared_memory.SharedArrays(spec, file), names)

    def _attach(
        self, memory: shared_memory.SharedArrays, names: tuple[str, ...]
    ) -> None:
        self._memory, self._names = memory, names
        self._words = memory.arrays["words"].data.cast("B").cast("q")
        self._rows = memory.arrays["rows"]
        self._barrier = barrier.make_barrier()

    @property
    def free(self) -> int:
        """Number of rows that can be written before the reader takes one."""
        return len(self._rows) - (self._words[_HEAD] - self._words[_TAIL])

    def write(self, values: dict[str, float]) -> bool:
        """Writes one row; a missing value reads as NaN.

        Returns:
          False if the ring is full, and nothing was written.

        Raises:
          KeyError: a name is not in this record.
        """
        unknown = values.keys() - set(self._names)
        if unknown:
            raise KeyError(f"not in this record: {sorted(unknown)}")
        if self.free <= 0:
            return False
        row = self._rows[self._words[_HEAD] % len(self._rows)]
        row[:] = [values.get(name, np.nan) for name in self._names]
        self._barrier()
        self._words[_HEAD] += 1
        return True

    def read(self) -> list[dict[str, float]]:
        """Takes all rows, oldest first."""
        found = []
        while self._words[_TAIL] < self._words[_HEAD]:
            self._barrier()
            row = self._rows[self._words[_TAIL] % len(self._rows)].tolist()
            found.append(dict(zip(self._names, row, strict=True)))
            self._barrier()
            self._words[_TAIL] += 1
        return found

    def __getstate__(self) -> tuple[Any, ...]:
        return self._memory, self._names
