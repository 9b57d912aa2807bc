"""Small cores of every kind, and rows to run them on."""

import torch

from impala_mp.networks import cores
from tests.support import builders

INPUTS, SIZE, HEADS, LAYERS, WINDOW = 5, 8, 2, 2, 3
ROWS, BATCH = 13, 6


def fresh(name, layers=LAYERS):
    config = builders.config(**{"network.core": name, "network.core_size": SIZE})
    config.network.gtrxl.update(layers=layers, heads=HEADS, window=WINDOW)
    torch.manual_seed(0)
    return cores.make(config.network, INPUTS)


def scaled(name, layers=LAYERS):
    """One whose gates are neither open nor shut, and whose biases are not zero."""
    core = fresh(name, layers)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return core


def random_state(core, seed=0):
    """Any; where a leaf counts the rows of a memory, from none to all of them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.arange(seed, seed + BATCH) % (WINDOW + 1)
    return tuple(
        counts.float().unsqueeze(-1)
        if shape == (1,)
        else torch.randn(BATCH, *shape, generator=generator)
        for shape in core.state_shapes
    )


def random_rows(seed=0, share_first=0.15):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(ROWS, BATCH, INPUTS, generator=generator)
    return inputs, torch.rand(ROWS, BATCH, generator=generator) < share_first
