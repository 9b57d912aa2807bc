"""Crash file: a failed learner step, with all data needed to repeat it."""

import os
import typing
from typing import NamedTuple

import torch

from impala_mp import errors, nest, types
from impala_mp.storage import checkpoint, files

_FORMAT = 6


class CrashFile(NamedTuple):
    """Input of `impala-diagnose`; tensors are on the CPU."""

    config: str  # JSON
    device: str
    tensors: dict[str, torch.Tensor]  # `Learner.tensors`, before the step
    agent_steps: int  # learned before the step; they set the learning rate
    batch: list[torch.Tensor]  # leaves of the batch's trajectory, [T+1, B, ...]
    header: dict[str, torch.Tensor]  # int64 [B] each
    parameter_version: torch.Tensor  # int64 [T, B]
    sample: list[torch.Tensor]  # leaves of types.Sample; empty without replay
    metrics: torch.Tensor  # of the step
    live: dict[str, float]  # hyperparameters, those of `algorithm.Live`
    random_state: list[torch.Tensor]  # before the step, from `random_state`
    threads: int  # of torch; they split sums, which changes the last bits
    update: int
    policy: str = ""  # its name; "" for a single one


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Copies the states of torch's CPU and device generators; does not wait."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    """Restores generator states from `random_state`."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def save(folder: str, crash: CrashFile) -> str:
    """Writes it as `<update>.pt`, whole or not at all; returns the path.

    Raises:
      OSError: it cannot be written, for example because the disk is full.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{crash.update}.pt")
    with files.replacing(path) as temporary:
        state = {"format_version": _FORMAT, **crash._asdict()}
        checkpoint.write_state(temporary, state)
    return path


def load(path: str) -> CrashFile:
    """Reads a file of `save`.

    Raises:
      BadInput: there is no such file, or it is no crash file of this version.
    """
    if not os.path.exists(path):
        raise errors.BadInput(f"{path} does not exist. Name a file under crashes/.")
    try:
        with files.open_to_read(path) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        if state.pop("format_version") != _FORMAT:
            raise KeyError
        return _checked(CrashFile(**state))
    except Exception as error:
        raise errors.BadInput(
            f"{path} is no crash file of this version. Name a file under crashes/."
        ) from error


def _checked(crash: CrashFile) -> CrashFile:
    """Returns `crash`. Raises TypeError if a value has another type than its field."""
    for name, expected in typing.get_type_hints(CrashFile).items():
        if not isinstance(
            getattr(crash, name), typing.get_origin(expected) or expected
        ):
            raise TypeError(name)
    return crash


_KEPT = ("time_step", "agent_output", "core_state", "before")


def leaves(batch: types.Trajectory) -> list[torch.Tensor]:
    """Copies a batch's tensors to the CPU, without header and episode ends."""
    kept = [getattr(batch, name) for name in _KEPT]
    return [leaf.detach().cpu().clone() for leaf in nest.flatten(kept)]


def names(batch: types.Trajectory) -> list[str]:
    """Returns the names of `leaves`, in the same order."""
    return [
        path
        for name in _KEPT
        for path, _ in nest.flatten_with_path(getattr(batch, name), name)
    ]
