"""File descriptors: how many a run holds, and whether that is allowed."""

import os
import resource
from typing import Any

from impala_mp import errors


def needed(num_actors: int, num_children: int, num_open: int) -> int:
    """Of the supervisor, which holds most, at a child's start.

    Six blocks of memory with two each (Python's mmap keeps one of its own), doorbells,
    two a child, and some for the life pipe, a start, and the files of a run.
    """
    memory, bells, spare = 2 * 6, num_actors + 2, 20
    return num_open + memory + bells + 2 * num_children + spare


def check(config: Any) -> str:
    """What a run of so many actors needs, in a sentence.

    Raises:
      BadInput: that is more than this process may have.
    """
    count = config.actors.count
    server = config.inference.mode == "server"
    children = 1 + count + server + bool(config.evaluation.interval_secs)
    if config.runtime.mode == "lockstep":
        children = 0
    number = needed(count, children, len(os.listdir("/proc/self/fd")))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and number > limit:
        raise errors.BadInput(
            f"about {number} file descriptors are needed, and {limit} allowed: raise"
            f" the limit, with `ulimit -n {2 * number}`, or lower config.actors.count."
        )
    return f"about {number} are needed, {limit} allowed."
