"""Anonymous shared memory, freed with the last process that maps it."""

import errno
import mmap
import os
import platform
from typing import Any, TextIO

import numpy as np

from impala_mp import errors, nest, specs, types
from impala_mp.config import container_limits
from impala_mp.transport import kernel

_ALIGNMENT = 64  # bytes: no two arrays share a cache line
_MEMFD_CREATE = 319 if platform.machine() == "x86_64" else 279
_CLOSE_ON_EXEC = 1


class MemoryFile(kernel.Descriptor):
    """Anonymous file whose pages are shared memory. It grows by each block.

    Unlike multiprocessing.shared_memory, memfd leaves nothing in /dev/shm after a kill,
    and is not limited by a container's small /dev/shm.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = kernel.call(_MEMFD_CREATE, b"impala_mp", _CLOSE_ON_EXEC)
        super().__init__(fd)
        self._end = 0  # of the blocks that this process has reserved

    def reserve(self, size: int) -> int:
        """Reserves pages for a block of `size` bytes; returns its offset.

        Raises:
          BadInput: there is not enough memory.
        """
        check_available(size)  # reserving too much wakes the OOM killer
        offset = self._end
        try:
            os.posix_fallocate(self._fd, offset, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            raise _shortage(size) from error
        self._end = offset + _rounded(size, mmap.ALLOCATIONGRANULARITY)
        return offset


class SharedArrays:
    """Nest of NumPy arrays in one block of a file, reserved up front.

    Picklable to a child at its start; the child maps the same pages.
    """

    def __init__(self, spec: types.Nest, file: MemoryFile | None = None) -> None:
        """Takes a block of `file`; None makes one for this block."""
        file = file or MemoryFile()
        self._map(file, file.reserve(total_bytes(spec)), spec)

    def _map(self, file: MemoryFile, offset: int, spec: types.Nest) -> None:
        self._file, self._offset, self._spec = file, offset, spec
        self.nbytes = total_bytes(spec)
        buffer = mmap.mmap(file.fileno(), self.nbytes, offset=offset)
        self.block = np.frombuffer(buffer, np.uint8)  # all of it
        offsets = iter(_offsets(spec)[0])

        def view(leaf: specs.ArraySpec) -> np.ndarray:
            return np.ndarray(leaf.shape, leaf.dtype, buffer, next(offsets))

        self.arrays: Any = nest.map_structure(view, spec)

    def close(self) -> None:
        """Closes the file; the pages stay while an array uses them."""
        self._file.close()

    def __getstate__(self) -> tuple[Any, ...]:
        return self._file, self._offset, self._spec

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._map(*state)


class InMemory:
    """Object whose state is in shared memory. Picklable to a child at its start.

    `_attach` makes it of its memory, here and in the child.
    """

    _memory: SharedArrays

    def _attach(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._memory.close()

    def __getstate__(self) -> tuple[Any, ...]:
        """Returns the arguments of `_attach`."""
        return (self._memory,)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._attach(*state)


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _offsets(spec: types.Nest) -> tuple[list[int], int]:
    """Returns the offset of each leaf, and the end, in bytes."""
    offsets, end = [], 0
    for leaf in nest.flatten(spec):
        offsets.append(end)
        end += _rounded(leaf.nbytes, _ALIGNMENT)
    return offsets, max(end, _ALIGNMENT)


def total_bytes(spec: types.Nest) -> int:
    """Returns the bytes that the arrays of `spec` take."""
    return _offsets(spec)[1]


def available_bytes() -> int:
    """Returns the memory left to this process, by the machine and control groups."""
    with open("/proc/meminfo") as file:
        available = _fields(file)["MemAvailable:"] * 1024
    return int(min(available, container_limits.memory_left()))


def _fields(file: TextIO) -> dict[str, int]:
    """Parses lines of a name and a number, as in /proc and cgroups."""
    words = (line.split() for line in file)
    return {name: int(number) for name, number, *unit in words}


def check_available(size: int) -> None:
    """Raises BadInput if fewer than `size` bytes are available."""
    if size > available_bytes():
        raise _shortage(size)


def _shortage(size: int) -> errors.BadInput:
    return errors.BadInput(
        f"the trajectory rings, parameter buffers and replay need"
        f" {size / 2**20:,.0f} MiB of memory, but"
        f" {available_bytes() / 2**20:,.0f} MiB are available. Lower"
        " config.actors.slots, config.actors.count, config.unroll_length or"
        " config.replay.memory_mib."
    )
