"""What a process, and a run, hold of the machine's memory."""

import os

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
_SAVE_SECS = 10.0  # a GiB of a checkpoint, hashed and on a slow disk


def private_mib(pid: int) -> float:
    """MiB of a process that nobody shares with it by name; 0 when it is gone.

    Pages that a forkserver child still shares with its parent are counted for both:
    what is left out is the arena, and mapped files.
    """
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (resident - shared) * _PAGE_MIB


def _mib(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"


def explain(
    holders: dict[str, int], ring_bytes: int, batch_bytes: int, parameter_bytes: int
) -> str:
    """What is allocated at the start, in a sentence.

    Args:
      holders: who holds copies of the parameters, and how many.
    """

    return (
        f"Memory: {_mib(ring_bytes)} of trajectory rings, {_mib(batch_bytes)} a staging"
        f" batch; the parameters are {_mib(parameter_bytes)}, and there are"
        f" {sum(holders.values())} copies of them:"
        f" {', '.join(f'{count} {name}' for name, count in holders.items())}."
    )


def explain_replay(
    capacity: int, num_bytes: int, saved: bool, deadline_secs: float
) -> str:
    """What the replay may hold, in a sentence; "" if there is none.

    With a second one if a stop, whose first half is for learning what is left, leaves
    too little time to write it.
    """
    if not capacity:
        return ""
    text = f"Replay: up to {capacity:,} trajectories, in {_mib(num_bytes)}."
    seconds = _SAVE_SECS * num_bytes / 2**30
    if saved and seconds > deadline_secs / 2.0:
        text += (
            f" A checkpoint of it may take {seconds:,.0f} s, and shutdown.deadline_secs"
            f" ({deadline_secs:g}) leaves {deadline_secs / 2.0:g} to the last one: set"
            f" config.shutdown.deadline_secs={2.0 * seconds:.0f}, or"
            " config.replay.save=False."
        )
    return text
