"""A learner step that went bad, with all that it takes to repeat it."""

import io
import os
from typing import NamedTuple

import torch

from impala_mp import errors, nest, types
from impala_mp.storage import files

_FORMAT = 5


class CrashFile(NamedTuple):
    """What `impala-diagnose` needs; tensors are on the CPU."""

    config: str  # JSON
    device: str
    tensors: dict[str, torch.Tensor]  # `Learner.tensors`, before the step
    agent_steps: int  # learned before it: the learning rate depends on them
    batch: list[torch.Tensor]  # leaves of the batch's trajectory, [T+1, B, ...]
    header: dict[str, torch.Tensor]  # int64 [B] each
    parameter_version: torch.Tensor  # int64 [T, B]
    sample: list[torch.Tensor]  # as types.Sample has them; empty without replay
    metrics: torch.Tensor  # what the step gave
    live: dict[str, float]  # hyperparameters, as `algorithm.Live` has them
    random_state: list[torch.Tensor]  # before the step, as `random_state` gives it
    threads: int  # of torch: how sums are cut decides on their last bits
    update: int


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Of torch's own generators, the CPU's and the device's; waits for nothing."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    """Puts back what `random_state` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def save(folder: str, crash: CrashFile) -> str:
    """Writes it as `<update>.pt`, whole or not at all; returns the path.

    Raises:
      OSError: the disk is full, say.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{crash.update}.pt")
    buffer = io.BytesIO()
    torch.save({"format_version": _FORMAT, **crash._asdict()}, buffer)
    files.write_durably(f"{path}.writing", buffer.getvalue())
    os.replace(f"{path}.writing", path)
    return path


def load(path: str) -> CrashFile:
    """Reads what `save` wrote.

    Raises:
      BadInput: it is not there, or something else.
    """
    if not os.path.isfile(path):
        raise errors.BadInput(f"{path} is not there: name a file under crashes/.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.pop("format_version") != _FORMAT:
            raise KeyError
        return CrashFile(**state)
    except Exception as error:
        raise errors.BadInput(
            f"{path} is no crash file of this version: name a file under crashes/."
        ) from error


_KEPT = ("time_step", "agent_output", "core_state")


def leaves(batch: types.Trajectory) -> list[torch.Tensor]:
    """Copies of a batch's tensors, on the CPU; header and episode ends left out."""
    kept = [getattr(batch, name) for name in _KEPT]
    return [leaf.detach().cpu().clone() for leaf in nest.flatten(kept)]


def names(batch: types.Trajectory) -> list[str]:
    """What the leaves are called, in the same order."""
    return [
        path
        for name in _KEPT
        for path, _ in nest.flatten_with_path(getattr(batch, name), name)
    ]
