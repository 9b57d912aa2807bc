"""Limits of this process by its control groups: cores and memory.

Docker, Kubernetes, Slurm and systemd set them, in version 1 or 2 of control groups. A
limit of a parent group counts, too.
"""

import contextlib
import math
import os
from collections.abc import Iterator

_GROUPS, _MOUNT = "/proc/self/cgroup", "/sys/fs/cgroup"


def num_cores() -> int:
    """Returns how many cores this process may use at a time.

    A process that uses more than its limit of CPU time is throttled: all of its threads
    stop for the rest of each period.
    """
    return math.ceil(min([len(os.sched_getaffinity(0)), *_quotas()]))


def cores_to_bind() -> list[int]:
    """Returns the cores that threads may be bound to, by number.

    With a limit of CPU time there are none. Other containers use the same cores, and
    would bind their threads to the first ones, too.
    """
    cores = sorted(os.sched_getaffinity(0))
    return cores if num_cores() == len(cores) else []


def _quotas() -> Iterator[float]:
    """Yields the limits of CPU time, in cores."""
    for folder in _folders("cpu"):
        found = _numbers(folder, "cpu.max")  # without a limit: "max PERIOD"
        if not found:  # version 1; without a limit, the quota is -1
            quota = _numbers(folder, "cpu.cfs_quota_us")
            found = quota + _numbers(folder, "cpu.cfs_period_us")
        if len(found) == 2:
            yield found[0] / found[1]


def memory_left() -> float:
    """Returns the bytes that the limits of memory leave; infinity without a limit."""
    return min(_memory_left(), default=math.inf)


def _memory_left() -> Iterator[int]:
    for folder in _folders("memory"):
        for limit, usage, inactive in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            found = _numbers(folder, limit) + _numbers(folder, usage)
            if len(found) == 2:
                words = _words(folder, "memory.stat")
                # The kernel drops inactive file pages on demand.
                files = dict(zip(words[::2], words[1::2], strict=False))
                yield found[0] - found[1] + int(files.get(inactive, 0))


def _folders(controller: str) -> Iterator[str]:
    """Yields the folders of this process's groups, from its own to the root.

    In a container the path may be that outside, whose folders are not there. The root
    is the container's then.
    """
    with contextlib.suppress(OSError), open(_GROUPS) as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controller in controllers.split(","):
                root = os.path.join(_MOUNT, controller)
            elif not controllers:  # version 2
                root = _MOUNT
            else:
                continue
            while path := path.rstrip("/"):
                yield root + path
                path = os.path.dirname(path)
            yield root


def _words(folder: str, name: str) -> list[str]:
    """Returns the words of a file; none if it is not there."""
    try:
        with open(os.path.join(folder, name)) as file:
            return file.read().split()
    except OSError:
        return []


def _numbers(folder: str, name: str) -> list[int]:
    return [int(word) for word in _words(folder, name) if word.isdecimal()]
