"""Heartbeats and counters up, live hyperparameters down: one word each, one writer."""

import copy
import enum
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp import specs
from impala_mp.config import live_hyperparameters
from impala_mp.transport import barrier, shared_memory


class State(enum.IntEnum):
    """State that a process reports of itself."""

    NOT_STARTED = 0
    STARTING = 1
    RUNNING = 2
    WAITING_FOR_SLOT = 3  # back-pressure: the learner is the slower side
    WAITING_FOR_DATA = 4
    STOPPING = 5
    WAITING_FOR_INFERENCE = 6
    RESETTING = 7  # the environment's first reset, which may take long
    WAITING_FOR_RANKS = 8  # of several that learn: for another one


# States before a process has done anything for the run.
NOT_YET_RUNNING = frozenset({State.NOT_STARTED, State.STARTING, State.RESETTING})

# Words of a process's row. That process alone writes them. An incarnation continues
# the counts of the one before it.
COUNTERS = (
    "pid",
    "incarnation",
    "state",
    "heartbeat_ns",  # CLOCK_MONOTONIC
    "agent_steps",
    "environment_ns",
    "inference_ns",
    "wait_ns",
    "fetches",
    "torn_reads",
    "bad_rewards",  # unrolls that the actor discarded
    "bad_observations",  # likewise
    "observations_outside",  # outside of their space, but used
    "finished",  # unrolls, updates, evaluations or batches of requests, by role
)
# Words of a policy's books, of which each rank that learns it alone writes its own.
BOOKS = (
    "carried_over",  # trajectories of the runs before
    "learned",  # trajectories
    "discarded",  # trajectories
    "failed_checkpoints",
    "rank_mismatches",  # starts of all ranks, because one was not like the others
    "is_over",  # once the policy is finished: 1 when it is saved so, -1 if that failed
)

_LINE = 8  # int64 words of a cache line

_INDEX = {name: i for i, name in enumerate(live_hyperparameters.NAMES)}
_STOP, _SAVES, _CHANGES = range(3)  # orders; the supervisor writes them


class Counters:
    """Words in shared memory by name, with one writer."""

    def __init__(self, words: np.ndarray, names: Sequence[str]) -> None:
        """`words` is int64, one a name or more."""
        self._words = words.data.cast("B").cast("q")
        self._column = {name: i for i, name in enumerate(names)}

    def get(self, name: str) -> int:
        return self._words[self._column[name]]

    def set(self, name: str, value: int) -> None:
        self._words[self._column[name]] = value

    def add(self, name: str, value: int) -> None:
        self._words[self._column[name]] += value


class ProcessRow(Counters):
    """Words of one process. `row.beat(state)` is the heartbeat."""

    def __init__(self, words: np.ndarray) -> None:
        super().__init__(words, COUNTERS)
        self._beat, self._state = map(COUNTERS.index, ("heartbeat_ns", "state"))

    def beat(self, state: State) -> None:
        self._words[self._beat] = time.monotonic_ns()
        self._words[self._state] = state

    def beat_on(self) -> None:
        """Renews the heartbeat and keeps the state, during long work."""
        self._words[self._beat] = time.monotonic_ns()

    @property
    def state(self) -> State:
        return State(self.get("state"))

    def heartbeat_age_secs(self) -> float:
        return (time.monotonic_ns() - self.get("heartbeat_ns")) * 1e-9


class ControlBlock(shared_memory.InMemory):
    """Rows of all processes, orders, and live hyperparameters.

    A live hyperparameter is two words a policy. Its learner writes the scheduled value.
    The supervisor writes the override of a user, or NaN.
    """

    def __init__(
        self,
        num_processes: int,
        num_policies: int = 1,
        num_ranks: int = 1,
        file: shared_memory.MemoryFile | None = None,
    ) -> None:
        """Allocates the block; this object has the live values of policy 0."""
        columns = -(-len(COUNTERS) // _LINE) * _LINE  # whole cache lines a row
        live = specs.array_spec((num_policies, len(_INDEX)), np.float64)
        spec = {
            "orders": specs.array_spec((3,), np.int64),
            "rows": specs.array_spec((num_processes, columns), np.int64),
            "books": specs.array_spec((num_policies, num_ranks, _LINE), np.int64),
            "scheduled": live,
            "overrides": live,
        }
        self._attach(shared_memory.SharedArrays(spec, file), 0)
        self._memory.arrays["overrides"].fill(math.nan)
        # A process without a heartbeat has been silent since now, not since boot.
        beats = self._memory.arrays["rows"][:, COUNTERS.index("heartbeat_ns")]
        beats.fill(time.monotonic_ns())

    def _attach(self, memory: shared_memory.SharedArrays, policy: int) -> None:
        self._memory, self.policy = memory, policy
        self._orders = memory.arrays["orders"].data.cast("B").cast("q")
        self._scheduled, self._overrides = (
            memory.arrays[name][policy].data.cast("B").cast("d")
            for name in ("scheduled", "overrides")
        )
        self._barrier = barrier.make_barrier()

    def of(self, policy: int) -> "ControlBlock":
        """Returns the same block, with the live values of a policy."""
        block = copy.copy(self)
        block._attach(self._memory, policy)
        return block

    @property
    def books(self) -> list[Counters]:
        """Trajectory counts of the policy, by rank."""
        return [Counters(x, BOOKS) for x in self._memory.arrays["books"][self.policy]]

    def row(self, process: int) -> ProcessRow:
        return ProcessRow(self._memory.arrays["rows"][process])

    @property
    def stopping(self) -> bool:
        return self._orders[_STOP] != 0

    def stop(self) -> None:
        """Asks all processes to end. The supervisor calls it."""
        self._orders[_STOP] = 1

    @property
    def num_saves(self) -> int:
        """Number of checkpoints that were requested."""
        return self._orders[_SAVES]

    def ask_for_save(self) -> None:
        """Requests a checkpoint. The supervisor calls it."""
        self._orders[_SAVES] += 1

    def get(self, name: str) -> float:
        """Returns the value of a live hyperparameter that is in force."""
        i = _INDEX[name]
        override = self._overrides[i]
        return self._scheduled[i] if math.isnan(override) else override

    def set(self, name: str, value: float) -> None:
        """Sets the scheduled value. The learner calls it, once it runs."""
        self._scheduled[_INDEX[name]] = value

    def override(self, values: dict[str, float | None]) -> None:
        """Sets overrides; None removes one. The supervisor calls it."""
        self._orders[_CHANGES] += 1
        self._barrier()
        for name, value in values.items():
            self._overrides[_INDEX[name]] = math.nan if value is None else value
        self._barrier()
        self._orders[_CHANGES] += 1

    def overrides(self) -> dict[str, float]:
        """Returns the overrides by name."""
        values = zip(live_hyperparameters.NAMES, self._overrides, strict=True)
        return {name: value for name, value in values if not math.isnan(value)}

    @property
    def num_changes(self) -> int:
        """Counter that grows by 1 before and after overrides change.

        If a reader sees the same even number twice, no override changed in between.
        """
        return self._orders[_CHANGES]

    def __getstate__(self) -> tuple[Any, ...]:
        return self._memory, self.policy
