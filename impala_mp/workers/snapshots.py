"""Parameters at fixed agent steps, from the learner to the evaluator."""

from typing import NamedTuple

import numpy as np
import torch

from impala_mp.transport import parameter_store, shared_memory

_PROGRESS_BYTES = 3 * 8  # updates, agent steps and microseconds, after the parameters


class Moment(NamedTuple):
    """Progress of a training."""

    updates: int
    agent_steps: int
    time_secs: float


def make_store(
    num_bytes: int, file: shared_memory.MemoryFile | None = None
) -> parameter_store.ParameterStore:
    """Returns a store of snapshots of parameters of `num_bytes`."""
    return parameter_store.ParameterStore(num_bytes + _PROGRESS_BYTES, file=file)


class Writer:
    """The learner's side: one snapshot whenever `interval` agent steps are full.

    A snapshot that the evaluator has not taken is replaced by the next.
    """

    def __init__(
        self, flat: torch.Tensor, store: parameter_store.ParameterStore, interval: int
    ) -> None:
        """`flat` is uint8 [num_bytes], on any device; no snapshots at interval 0."""
        self._flat, self._store, self._interval = flat, store, interval
        self._buffer = np.zeros(store.num_bytes, np.uint8)
        self._intervals = 0  # full ones, at the last look

    def restore(self, agent_steps: int) -> None:
        """Continues at the progress of a checkpoint."""
        self._intervals = agent_steps // self._interval if self._interval else 0

    def look(self, moment: Moment) -> None:
        """Writes a snapshot if one is due."""
        if not self._interval:
            return
        intervals = moment.agent_steps // self._interval
        if intervals <= self._intervals:
            return
        self._intervals = intervals
        self._buffer[:-_PROGRESS_BYTES] = self._flat.cpu().numpy()
        progress = moment.updates, moment.agent_steps, round(1e6 * moment.time_secs)
        self._buffer[-_PROGRESS_BYTES:] = np.array(progress, np.int64).view(np.uint8)
        self._store.publish(self._buffer)


class Reader:
    """The evaluator's side."""

    def __init__(
        self, store: parameter_store.ParameterStore, flat: torch.Tensor
    ) -> None:
        """`flat` is uint8 [num_bytes] of the network that plays, on the CPU."""
        buffer = np.zeros(store.num_bytes, np.uint8)
        self._reader = parameter_store.ParameterReader(store, buffer)
        self._flat = flat

    def fetch(self) -> Moment | None:
        """Loads the newest snapshot; returns its progress, or None if there is none."""
        if not self._reader.fetch():
            return None
        buffer = self._reader.buffer
        self._flat.copy_(torch.from_numpy(buffer[:-_PROGRESS_BYTES]))
        progress = buffer[-_PROGRESS_BYTES:].view(np.int64).tolist()
        return Moment(progress[0], progress[1], 1e-6 * progress[2])
