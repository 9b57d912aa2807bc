"""Copy of a learner's state that outlives its process, in shared memory.

Two buffers take turns. The word `latest` only ever names a whole version, so a writer
that is killed midway leaves the version before. The only reader is the next incarnation
of the writer; it verifies the words and a checksum. Readers of a living writer need the
third buffer of `parameter_store`.
"""

from collections.abc import Iterable

import numpy as np

from impala_mp import specs
from impala_mp.transport import barrier, shared_memory

_BUFFERS = 2
_LINE = 8  # int64 words of a cache line
_LATEST, _READS = 0, 1  # words of the first line
_VERSION, _LENGTH, _CHECKSUM = 0, 1, 2  # words of each buffer's line
_ALIGNMENT = 8  # bytes: the checksum is a sum of words


class NotWhole(Exception):
    """The newest version cannot be used; the text is a clause."""


def aligned(num_bytes: int) -> int:
    """Returns the bytes that a piece of `num_bytes` takes."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


def _checksum(buffer: np.ndarray) -> int:
    """Returns the sum of the words, modulo 2^64."""
    return int(buffer.view(np.int64).sum())


class LearnerMemory(shared_memory.InMemory):
    """Memory of up to `num_bytes` bytes a version."""

    def __init__(
        self,
        num_bytes: int,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        """Allocates the memory. With 0 bytes nothing can be written to it."""
        spec = {
            "words": specs.array_spec((_LINE * (1 + _BUFFERS),), np.int64),
            "buffers": specs.array_spec((_BUFFERS, aligned(num_bytes)), np.uint8),
        }
        self._attach(shared_memory.SharedArrays(spec, file))

    def _attach(self, memory: shared_memory.SharedArrays) -> None:
        self._memory = memory
        self._words = memory.arrays["words"].data.cast("B").cast("q")
        self._buffers = list(memory.arrays["buffers"])
        self._barrier = barrier.make_barrier()
        self.num_bytes = self._buffers[0].nbytes  # of a version, at most
        self.nbytes = memory.nbytes  # of all versions

    @property
    def latest(self) -> int:
        """Newest whole version; 0 if there is none."""
        return self._words[_LATEST]

    @property
    def num_reads(self) -> int:
        """Number of reads of the newest version."""
        return self._words[_READS]

    def write(self, pieces: Iterable[np.ndarray]) -> int:
        """Writes arrays of uint8 one after the other; returns the version.

        Each begins at a multiple of 8 bytes.

        Raises:
          ValueError: they take more than `num_bytes`. The version before stays.
        """
        version = self.latest + 1
        index = version % _BUFFERS
        line = _LINE * (1 + index)
        self._words[line + _VERSION] = 0
        self._barrier()
        length = self._fill(self._buffers[index], pieces)
        self._words[line + _LENGTH] = length
        self._words[line + _CHECKSUM] = _checksum(self._buffers[index][:length])
        self._barrier()
        self._words[line + _VERSION] = version
        self._barrier()
        self._words[_LATEST] = version
        self._words[_READS] = 0
        return version

    def _fill(self, buffer: np.ndarray, pieces: Iterable[np.ndarray]) -> int:
        """Copies the pieces; returns the bytes that they take."""
        start = 0
        for piece in pieces:
            end = start + piece.nbytes
            if end > self.num_bytes:
                raise ValueError(f"the state takes more than {self.num_bytes} bytes.")
            buffer[start:end] = piece
            start = aligned(end)
            buffer[end:start] = 0
        return start

    def read(self) -> np.ndarray | None:
        """Returns the newest version, uint8, or None if there is none.

        It is a view, valid until the second write from here on.

        Raises:
          NotWhole: its words or its checksum do not hold.
        """
        version = self.latest
        if not version:
            return None
        self._words[_READS] += 1
        index = version % _BUFFERS
        found, length, checksum = self._words[_LINE * (1 + index) :][:3]
        self._barrier()
        if found != version or not 0 <= length <= self.num_bytes:
            raise NotWhole(f"the words of version {version} do not match")
        whole: np.ndarray = self._buffers[index][:length]
        if _checksum(whole) != checksum:
            raise NotWhole(f"the checksum of version {version} does not match")
        return whole

    def discard(self) -> None:
        """Leaves no version: the run has continued from another state."""
        self._words[_LATEST] = 0
