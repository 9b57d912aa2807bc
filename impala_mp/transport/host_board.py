"""Books and states of all actor hosts, from the receiver to all other processes."""

import json
from typing import Any

import numpy as np

from impala_mp import specs
from impala_mp.transport import (
    host_books,
    parameter_store,
    shared_memory,
    trajectory_ring,
)

_BYTES = 1024  # of the text of one host


class HostBoard:
    """Memory of the receiver that outlives it. Picklable to a child."""

    def __init__(
        self,
        num_hosts: int,
        num_policies: int = 1,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        shape = (num_hosts, num_policies, host_books.WORDS)
        spec = specs.array_spec(shape, np.int64)
        self._memory = shared_memory.SharedArrays(spec, file)
        self._states = parameter_store.ParameterStore(num_hosts * _BYTES, file=file)
        self.num_hosts = num_hosts

    def books(
        self, host: int, ring: trajectory_ring.TrajectoryRing, policy: int = 0
    ) -> host_books.HostBooks:
        """Returns the books of one host and policy, whose ring here is `ring`."""
        return host_books.HostBooks(self._memory.arrays[host, policy], ring)

    def publish(self, hosts: list[dict[str, Any]]) -> None:
        """Replaces the states, one a host. A reason that is too long is cut."""
        text = np.zeros((self.num_hosts, _BYTES), np.uint8)
        for row, each in zip(text, hosts, strict=True):
            data = _encoded(each)
            row[: len(data)] = np.frombuffer(data, np.uint8)
        self._states.publish(text.reshape(-1))

    def read(self) -> list[dict[str, Any]]:
        """Returns the newest states; [] before the first."""
        buffer = np.empty(self.num_hosts * _BYTES, np.uint8)
        if self._states.fetch(buffer) <= 0:
            return []
        rows = buffer.reshape(self.num_hosts, _BYTES)
        return [json.loads(bytes(row).rstrip(b"\0")) for row in rows]

    def close(self) -> None:
        self._memory.close()
        self._states.close()


def _encoded(state: dict[str, Any]) -> bytes:
    """Returns a state as JSON of at most _BYTES bytes."""
    data = json.dumps(state).encode()
    while len(data) > _BYTES and state["reason"]:
        excess = len(data) - _BYTES
        # JSON writes a character as up to 12 bytes.
        state = {**state, "reason": state["reason"][: -1 - excess // 12]}
        data = json.dumps(state).encode()
    return data
