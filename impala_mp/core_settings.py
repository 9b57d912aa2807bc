"""What the settings of the core may be, and which of them do not fit together."""

from typing import Any

from impala_mp import errors

CORES = ("none", "lstm", "gru", "gtrxl")


def check(network: Any) -> None:
    """Refuses a core, in `config.network`, that cannot be made.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    name, size, heads = network.core, network.core_size, network.gtrxl.heads
    if name not in CORES and ":" not in name:
        raise errors.BadInput(
            f"network.core ({name!r}) must be one of {', '.join(CORES)}, or"
            " module:factory: set config.network.core."
        )
    if name == "gtrxl" and size % heads:
        raise errors.BadInput(
            f"network.core_size ({size}) must be a multiple of network.gtrxl.heads"
            f" ({heads}): set config.network.core_size to {-(-size // heads) * heads}."
        )
