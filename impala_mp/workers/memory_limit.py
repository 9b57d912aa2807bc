"""Limit of the memory that a network may take, checked before a page is touched."""

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.modules import module as hooks

from impala_mp import errors
from impala_mp.networks import flat_parameters
from impala_mp.transport import shared_memory


@contextlib.contextmanager
def limited_by_memory() -> Iterator[None]:
    """Refuses, in its context, to make a module that does not fit into memory.

    Counts parameter by parameter, before a page is touched: the kernel promises more
    memory than it has, and kills later.

    Raises:
      BadInput: with the bytes that are needed and available.
    """
    available, needed = shared_memory.available_bytes(), 0

    def count(module: torch.nn.Module, name: str, parameter: torch.Tensor) -> None:
        nonlocal needed
        needed += flat_parameters._COPIES * parameter.nbytes
        if needed > available:
            raise _too_large(needed, available)

    handle = hooks.register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "overflow" in str(error):
            raise _too_large(available, available) from error
        raise
    finally:
        handle.remove()


def _too_large(needed: int, available: int) -> errors.BadInput:
    return errors.BadInput(
        f"the network takes more than {needed / 2**20:,.0f} MiB of memory to be made,"
        f" and {available / 2**20:,.0f} MiB are available. Lower"
        " config.network.hidden_sizes or config.network.core_size."
    )
