"""Heartbeats and counters up, live hyperparameters down: one word each, one writer."""

import enum
import math
import time
from typing import Any

import numpy as np

from impala_mp import specs
from impala_mp.config import live_hyperparameters
from impala_mp.transport import barrier, shared_memory


class State(enum.IntEnum):
    """What a process says of itself."""

    NOT_STARTED = 0
    STARTING = 1
    RUNNING = 2
    WAITING_FOR_SLOT = 3  # back-pressure: the learner is the slower side
    WAITING_FOR_DATA = 4
    STOPPING = 5
    WAITING_FOR_INFERENCE = 6
    RESETTING = 7  # the environment's first reset, which may take long


# Of a process that has not yet done anything for the run.
NOT_YET_RUNNING = frozenset({State.NOT_STARTED, State.STARTING, State.RESETTING})

# Words of a process's row, written by that process alone; an incarnation goes on
# counting where the one before it was killed.
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
    "bad_rewards",  # unrolls thrown away by the actor
    "bad_observations",  # likewise
    "observations_outside",  # of their space, and used all the same
    "carried_over",  # trajectories of the runs before, the learner's alone
    "learned",  # trajectories, the learner's alone
    "discarded",  # trajectories, the learner's alone
    "failed_checkpoints",  # the learner's alone
)
_COLUMN = {name: i for i, name in enumerate(COUNTERS)}

_INDEX = {name: i for i, name in enumerate(live_hyperparameters.NAMES)}
_STOP, _SAVES, _CHANGES = range(3)  # the orders, each a word of the supervisor's


class ProcessRow:
    """One process's words. `row.beat(state)` is the heartbeat."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words.data.cast("B").cast("q")

    def get(self, name: str) -> int:
        return self._words[_COLUMN[name]]

    def set(self, name: str, value: int) -> None:
        self._words[_COLUMN[name]] = value

    def add(self, name: str, value: int) -> None:
        self._words[_COLUMN[name]] += value

    def beat(self, state: State) -> None:
        self._words[_COLUMN["heartbeat_ns"]] = time.monotonic_ns()
        self._words[_COLUMN["state"]] = state

    def beat_on(self) -> None:
        """For what takes long: a heartbeat, in whatever state it is."""
        self._words[_COLUMN["heartbeat_ns"]] = time.monotonic_ns()

    @property
    def state(self) -> State:
        return State(self.get("state"))

    def heartbeat_age_secs(self) -> float:
        return (time.monotonic_ns() - self.get("heartbeat_ns")) * 1e-9


class ControlBlock:
    """The rows of all processes, the stop word and the live hyperparameters.

    A live hyperparameter is two words: what its schedule says, which is the learner's,
    and what a person says instead, which is the supervisor's; NaN if nothing.

    Picklable to a child.
    """

    def __init__(self, num_processes: int) -> None:
        columns = -(-len(COUNTERS) // 8) * 8  # whole cache lines a row
        spec = {
            "orders": specs.array_spec((3,), np.int64),
            "rows": specs.array_spec((num_processes, columns), np.int64),
            "scheduled": specs.array_spec((len(_INDEX),), np.float64),
            "overrides": specs.array_spec((len(_INDEX),), np.float64),
        }
        self._attach(shared_memory.SharedArrays(spec))
        self._memory.arrays["overrides"].fill(math.nan)
        # A process that has not been heard of is silent since now, not since boot.
        beats = self._memory.arrays["rows"][:, _COLUMN["heartbeat_ns"]]
        beats.fill(time.monotonic_ns())

    def _attach(self, memory: shared_memory.SharedArrays) -> None:
        self._memory = memory
        self._orders = memory.arrays["orders"].data.cast("B").cast("q")
        self._scheduled, self._overrides = (
            memory.arrays[name].data.cast("B").cast("d")
            for name in ("scheduled", "overrides")
        )
        self._barrier = barrier.make_barrier()

    def row(self, process: int) -> ProcessRow:
        return ProcessRow(self._memory.arrays["rows"][process])

    @property
    def stopping(self) -> bool:
        return self._orders[_STOP] != 0

    def stop(self) -> None:
        """Asks everyone to end. The supervisor's to call."""
        self._orders[_STOP] = 1

    @property
    def num_saves(self) -> int:
        """Checkpoints that have been asked for."""
        return self._orders[_SAVES]

    def ask_for_save(self) -> None:
        """The supervisor's to call."""
        self._orders[_SAVES] += 1

    def get(self, name: str) -> float:
        """A live hyperparameter, as it is in force now."""
        i = _INDEX[name]
        override = self._overrides[i]
        return self._scheduled[i] if math.isnan(override) else override

    def set(self, name: str, value: float) -> None:
        """What the schedule says. The learner's to call, once there is one."""
        self._scheduled[_INDEX[name]] = value

    def override(self, values: dict[str, float | None]) -> None:
        """What holds instead; None: the schedule again. The supervisor's to call."""
        self._orders[_CHANGES] += 1
        self._barrier()
        for name, value in values.items():
            self._overrides[_INDEX[name]] = math.nan if value is None else value
        self._barrier()
        self._orders[_CHANGES] += 1

    def overrides(self) -> dict[str, float]:
        """What a person has set."""
        values = zip(live_hyperparameters.NAMES, self._overrides, strict=True)
        return {name: value for name, value in values if not math.isnan(value)}

    @property
    def num_changes(self) -> int:
        """Counted up before and after overrides change.

        Who reads the same even number twice knows that between the two none did.
        """
        return self._orders[_CHANGES]

    def close(self) -> None:
        self._memory.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._memory,)


def _attach(memory: shared_memory.SharedArrays) -> ControlBlock:
    block = ControlBlock.__new__(ControlBlock)
    block._attach(memory)
    return block
