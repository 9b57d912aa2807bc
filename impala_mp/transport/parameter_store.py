"""Publication of a flat buffer without torn reads, even if any process dies.

Each of three buffers has a version word, which is 0 while the buffer is written. The
word `latest` only ever names a whole version. A reader copies, and keeps the copy only
if the version word did not change. The writer must publish twice more during one copy
to disturb it. (A killed writer leaves a plain sequence lock odd for ever, and
`load_state_dict` on shared tensors is torn while it is read.)
"""

from typing import Any

import numpy as np

from impala_mp import specs
from impala_mp.transport import barrier, shared_memory

_BUFFERS = 3
_LINE = 8  # int64 words of a cache line
_LATEST, _VERSION, _CHECKSUM = 0, _LINE, _LINE * (1 + _BUFFERS)
_WORDS = _LINE * (1 + 2 * _BUFFERS)
_ATTEMPTS = 8  # copies of a fetch before it gives up
FAILED = -1  # result of such a fetch


def checksum(buffer: np.ndarray) -> int:
    """Returns a 63-bit sum of the words; a mixture of two versions changes it."""
    words = buffer[: buffer.nbytes // 8 * 8].view(np.uint64)
    return int(words.sum(dtype=np.uint64) >> np.uint64(1))


class ParameterStore(shared_memory.InMemory):
    """Store of `num_bytes` bytes: one writer, many readers."""

    def __init__(
        self,
        num_bytes: int,
        checksums: bool = False,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        spec = {
            "words": specs.array_spec((_WORDS,), np.int64),
            "buffers": specs.array_spec((_BUFFERS, num_bytes), np.uint8),
        }
        self._attach(shared_memory.SharedArrays(spec, file), checksums)

    def _attach(self, memory: shared_memory.SharedArrays, checksums: bool) -> None:
        self._memory, self._checksums = memory, checksums
        self._words = memory.arrays["words"].data.cast("B").cast("q")
        self._buffers = list(memory.arrays["buffers"])
        self._barrier = barrier.make_barrier()
        self.num_bytes = self._buffers[0].nbytes
        self.torn = 0  # copies that this reader discarded

    @property
    def latest(self) -> int:
        """Newest whole version; 0 before the first."""
        return self._words[_LATEST]

    def publish(self, source: np.ndarray) -> int:
        """Publishes `source`, uint8 [num_bytes]; returns the version."""
        version = self.latest + 1
        index = version % _BUFFERS
        self._words[_VERSION + _LINE * index] = 0
        self._barrier()
        np.copyto(self._buffers[index], source)
        if self._checksums:
            self._words[_CHECKSUM + _LINE * index] = checksum(self._buffers[index])
        self._barrier()
        self._words[_VERSION + _LINE * index] = version
        self._barrier()
        self._words[_LATEST] = version
        return version

    def fetch(self, into: np.ndarray, newer_than: int = 0) -> int:
        """Copies the newest version into `into`, uint8 [num_bytes].

        Returns:
          The version. 0 if none is newer than `newer_than`; `into` is unchanged.
          FAILED after too many torn copies; `into` is undefined.

        Raises:
          RuntimeError: a checksum does not match.
        """
        for _ in range(_ATTEMPTS):
            version = self.latest
            if version <= newer_than:
                return 0
            if self._copy(version, into):
                return version
            self.torn += 1
        return FAILED

    def _copy(self, version: int, into: np.ndarray) -> bool:
        index = version % _BUFFERS
        word = _VERSION + _LINE * index
        if self._words[word] != version:
            return False
        self._barrier()
        np.copyto(into, self._buffers[index])
        expected = self._words[_CHECKSUM + _LINE * index]
        self._barrier()
        if self._words[word] != version:
            return False
        if self._checksums and checksum(into) != expected:
            raise RuntimeError(f"version {version} of the parameters is torn")
        return True

    def __getstate__(self) -> tuple[Any, ...]:
        return self._memory, self._checksums


class ParameterReader:
    """One buffer that follows a store, and the version that the buffer contains.

    The buffer may be the memory of a network, so that a process holds one copy. A
    caller acts with the buffer only while `version` is not 0.
    """

    def __init__(self, store: ParameterStore, buffer: np.ndarray) -> None:
        """`buffer` is uint8 [num_bytes]."""
        self._store, self.buffer = store, buffer
        self.version = 0  # 0: the buffer contains no whole version
        self.num_fetches = 0  # fetches that wrote to the buffer
        self.num_torn = 0  # copies that this reader discarded

    def fetch(self) -> bool:
        """Copies the newest version if it is newer; returns whether it did.

        After a failed copy `version` is 0, and the next call copies again.
        """
        before, self.version = self.version, 0  # 0 also if the store raises
        torn = self._store.torn
        fetched = self._store.fetch(self.buffer, newer_than=before)
        self.num_torn += self._store.torn - torn
        self.num_fetches += fetched != 0
        self.version = max(0, fetched) if fetched else before
        return fetched > 0
