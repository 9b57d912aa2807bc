"""Rows of a slot as views, made once: tensors and arrays of the same memory."""

from typing import NamedTuple

import numpy as np
import torch

from impala_mp import nest, types


class SlotRows(NamedTuple):
    """Rows that actors and the inference server write."""

    time_steps: list[types.TimeStep]  # T+1, of tensors [E, ...]
    time_step_arrays: list[types.TimeStep]  # T+1, of arrays [E, ...]
    outputs: list[types.Nest]  # T, of tensors [E, ...]: by the agent's output_spec
    actions: list[types.Nest]  # T, of arrays [E, ...]
    episode_ends: list[types.EpisodeEnd]  # T, of arrays [E]
    versions: list[np.ndarray]  # T, [E]: of the parameters that act
    core_state: tuple[torch.Tensor, ...]
    header: types.Header


def of_slot(slot: types.Trajectory) -> SlotRows:
    """Returns views of a slot of arrays."""
    num_steps, _ = slot.shape
    tensors = nest.map_structure(torch.from_numpy, slot)
    return SlotRows(
        time_steps=_rows(tensors.time_step, num_steps + 1),
        time_step_arrays=_rows(slot.time_step, num_steps + 1),
        outputs=_rows(tensors.agent_output, num_steps),
        actions=_rows(slot.agent_output.action, num_steps),
        episode_ends=_rows(slot.episode_end, num_steps),
        versions=_rows(slot.parameter_version, num_steps),
        core_state=tensors.core_state,
        header=slot.header,
    )


def _rows(structure: types.Nest, count: int) -> list[types.Nest]:
    return [nest.map_structure(lambda x, t=t: x[t], structure) for t in range(count)]


def half(slot: types.Trajectory, index: int) -> types.Trajectory:
    """Returns views of the columns of half 0 or 1 of the environments."""
    size = slot.header.actor.shape[0] // 2
    columns = slice(index * size, (index + 1) * size)
    cut: types.Trajectory = nest.map_batch(
        lambda axis, leaf: leaf[:, columns] if axis else leaf[columns], slot
    )
    return cut


def write(row: types.Nest, values: types.Nest) -> None:
    """Copies arrays, or values that broadcast to them, into a row of arrays."""
    for stored, value in zip(row, values, strict=True):
        if isinstance(stored, np.ndarray):
            stored[...] = value
        else:
            nest.map_structure(np.copyto, stored, value)


def write_tensors(row: types.Nest, values: types.Nest) -> None:
    """Copies tensors into a row of tensors."""
    for stored, value in zip(row, values, strict=True):
        if isinstance(stored, torch.Tensor):
            stored.copy_(value)
        else:
            nest.map_structure(torch.Tensor.copy_, stored, value)
