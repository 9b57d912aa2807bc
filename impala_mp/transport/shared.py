"""Everything that a child process gets."""

from typing import Any, NamedTuple

import numpy as np

from impala_mp import seeding, specs
from impala_mp.config import live_hyperparameters
from impala_mp.transport import (
    control_block,
    inference_requests,
    learner_memory,
    name_tables,
    parameter_store,
    record_ring,
    topology as topology_lib,
    trajectory_ring,
)


class Cores(NamedTuple):
    """Cores by role; an empty tuple leaves the choice to the kernel."""

    learner: tuple[int, ...]
    actors: tuple[tuple[int, ...], ...]
    server: tuple[int, ...] = ()  # of the inference server, if any


class Shared(NamedTuple):
    """Memory that crosses a process boundary, and the settings to use it."""

    config: Any  # a frozen ConfigDict
    live: live_hyperparameters.LiveHyperparameters  # of the config
    environment: specs.EnvironmentSpec
    batch: Any  # the batch's trajectory spec
    topology: topology_lib.Topology
    control: control_block.ControlBlock
    rings: trajectory_ring.TrajectoryRings
    store: parameter_store.ParameterStore
    snapshots: parameter_store.ParameterStore  # for the evaluator
    learner_memory: learner_memory.LearnerMemory  # for its next incarnation
    inference: inference_requests.InferenceBlock
    names: name_tables.NameTables  # of the user's numbers: of actors, and of all
    learner_record: record_ring.RecordRing
    evaluation_record: record_ring.RecordRing
    checkpoints: str  # folder
    learner_threads: int
    cores: Cores
    profile_updates: int = 0
    run: int = (
        0  # number of the run in its folder; 0 in lockstep, which is deterministic
    )

    def row(self, seat: topology_lib.Seat) -> control_block.ProcessRow:
        """Returns the words of one seat's processes."""
        return self.control.row(seat.row)

    def seeds(
        self, role: str, index: int = 0, incarnation: int = 0
    ) -> np.random.SeedSequence:
        """Returns the seeds of one incarnation in one run, which no other has."""
        return seeding.sequence(self.config.seed, role, index, incarnation, self.run)
