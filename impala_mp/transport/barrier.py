"""Memory barrier: keeps the stores of one process in order for another."""

import platform
from collections.abc import Callable

from impala_mp.transport import kernel

_REGISTER_GLOBAL_EXPEDITED, _GLOBAL_EXPEDITED = 1 << 2, 1 << 1
_MEMBARRIER_AARCH64 = 283


def _nothing() -> None:
    """Needs no instruction: x86 keeps stores in order, and loads in order."""


def _membarrier() -> Callable[[], None]:
    kernel.call(_MEMBARRIER_AARCH64, _REGISTER_GLOBAL_EXPEDITED, 0, 0)

    def barrier() -> None:
        kernel.call(_MEMBARRIER_AARCH64, _GLOBAL_EXPEDITED, 0, 0)

    return barrier


def make_barrier() -> Callable[[], None]:
    """Returns a function to call between a payload and the word that announces it.

    Raises:
      RuntimeError: the processor's memory order is unknown.
    """
    machine = platform.machine()
    if machine in ("x86_64", "AMD64"):
        return _nothing
    if machine == "aarch64":
        return _membarrier()
    raise RuntimeError(
        f"the memory order of {machine} is unknown. Use x86_64 or aarch64."
    )
