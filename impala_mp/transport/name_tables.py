"""Tables of names in shared memory: each grows, and has one writer.

A name is written before the count that announces it, so a reader sees whole names. The
next incarnation of a killed writer continues its table.
"""

import numpy as np

from impala_mp import specs
from impala_mp.transport import barrier, shared_memory

_BYTES = 256  # of a name
_LINE = 8  # int64 words of a cache line


class NameTable:
    """Names in the order in which they were added, up to a fixed number."""

    def __init__(self, count: np.ndarray, rows: np.ndarray) -> None:
        """`count` is int64 [8], and `rows` uint8 [names, bytes]."""
        self._count, self._rows = count.data.cast("B").cast("q"), rows
        self._barrier = barrier.make_barrier()
        self._names: list[str] = []

    def append(self, name: str) -> None:
        """Adds a name. There must be room for it."""
        data = np.frombuffer(name.encode()[:_BYTES], np.uint8)
        row = self._rows[self._count[0]]
        row[:] = 0
        row[: len(data)] = data
        self._barrier()
        self._count[0] += 1

    def __len__(self) -> int:
        return self._count[0]

    def names(self) -> list[str]:
        """Returns all names so far."""
        count = len(self)
        if count > len(self._names):
            self._barrier()
            new = self._rows[len(self._names) : count]
            self._names += [
                bytes(row).rstrip(b"\0").decode(errors="replace") for row in new
            ]
        return self._names


class NameTables(shared_memory.InMemory):
    """Tables of several processes, in one block."""

    def __init__(
        self,
        num_tables: int,
        num_names: int,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        spec = {
            "counts": specs.array_spec((num_tables, _LINE), np.int64),
            "rows": specs.array_spec((num_tables, num_names, _BYTES), np.uint8),
        }
        self._attach(shared_memory.SharedArrays(spec, file))

    def _attach(self, memory: shared_memory.SharedArrays) -> None:
        self._memory = memory
        self.tables = [
            NameTable(count, rows)
            for count, rows in zip(
                memory.arrays["counts"], memory.arrays["rows"], strict=True
            )
        ]
