"""Anonymous shared memory, freed with the last process that maps it."""

import errno
import mmap
import os
from multiprocessing import reduction
from typing import Any, TextIO

import numpy as np

from impala_mp import errors, nest, specs, types

_ALIGNMENT = 64  # bytes: no two arrays share a cache line


class SharedArrays:
    """Nest of NumPy arrays in one block of anonymous memory, reserved up front.

    Picklable to a child at its start; the child maps the same pages. Unlike
    multiprocessing.shared_memory, memfd leaves nothing in /dev/shm after a kill, and
    is not limited by a container's small /dev/shm.
    """

    _fd = -1

    def __init__(self, spec: types.Nest) -> None:
        size = total_bytes(spec)
        check_available(size)  # reserving too much wakes the OOM killer
        fd = os.memfd_create("impala_mp", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            os.close(fd)
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            raise _shortage(size) from error
        self._map(fd, spec)

    def _map(self, fd: int, spec: types.Nest) -> None:
        self._fd, self._spec = fd, spec
        self.nbytes = total_bytes(spec)
        buffer = mmap.mmap(fd, self.nbytes)
        offsets = iter(_offsets(spec)[0])

        def view(leaf: specs.ArraySpec) -> np.ndarray:
            return np.ndarray(leaf.shape, leaf.dtype, buffer, next(offsets))

        self.arrays: Any = nest.map_structure(view, spec)

    def close(self) -> None:
        """Closes the descriptor; the pages stay while an array uses them."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (reduction.DupFd(self._fd), self._spec)


def _attach(duplicate: Any, spec: types.Nest) -> SharedArrays:
    arrays = SharedArrays.__new__(SharedArrays)
    arrays._map(duplicate.detach(), spec)
    arrays.close()  # a child needs the mapping only
    return arrays


def _offsets(spec: types.Nest) -> tuple[list[int], int]:
    """Returns the offset of each leaf, and the end, in bytes."""
    offsets, end = [], 0
    for leaf in nest.flatten(spec):
        offsets.append(end)
        end += -(-leaf.nbytes // _ALIGNMENT) * _ALIGNMENT
    return offsets, max(end, _ALIGNMENT)


def total_bytes(spec: types.Nest) -> int:
    """Returns the bytes that the arrays of `spec` take."""
    return _offsets(spec)[1]


def available_bytes(cgroup: str = "/sys/fs/cgroup") -> int:
    """Returns the memory left to this process, by the machine and by its cgroup."""
    with open("/proc/meminfo") as file:
        available = _fields(file)["MemAvailable:"] * 1024
    try:
        with open(f"{cgroup}/memory.max") as limit:
            maximum = limit.read().strip()
        with open(f"{cgroup}/memory.current") as current:
            used = int(current.read())
        with open(f"{cgroup}/memory.stat") as file:
            # The kernel drops inactive file pages on demand.
            used -= _fields(file)["inactive_file"]
    except OSError:  # no cgroup v2 here
        return available
    return available if maximum == "max" else min(available, int(maximum) - used)


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
