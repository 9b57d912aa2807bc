"""Everything that a child process gets."""

import os
from typing import Any, NamedTuple

import numpy as np

from impala_mp import seeding, specs
from impala_mp.config import live_hyperparameters
from impala_mp.transport import (
    control_block,
    host_board,
    inference_requests,
    league_memory,
    learner_memory,
    name_tables,
    parameter_store,
    population_block,
    record_ring,
    topology as topology_lib,
    trajectory_ring,
)

_PER_HOST = 1_000  # restarts of one actor in one incarnation of a host, at most


class Cores(NamedTuple):
    """Cores by role; an empty tuple leaves the choice to the kernel."""

    learners: tuple[tuple[int, ...], ...]  # by rank
    actors: tuple[tuple[int, ...], ...]
    server: tuple[int, ...] = ()  # of the inference server, if any


class Shared(NamedTuple):
    """Memory of one policy that crosses a process boundary, and the settings to use it.

    A child gets one of each policy. From `whole` on, all of them have the same.
    """

    policy: str  # its name; "" for a single one
    number: int  # of the policy, from 0
    config: Any  # a frozen ConfigDict
    live: live_hyperparameters.LiveHyperparameters  # of the config
    environment: specs.EnvironmentSpec  # of the policy's players
    batch: Any  # the batch's trajectory spec
    control: control_block.ControlBlock  # with the policy's live values and books
    rings: trajectory_ring.TrajectoryRings
    store: parameter_store.ParameterStore
    snapshots: parameter_store.ParameterStore  # for the evaluator
    league: league_memory.LeagueMemory  # snapshots that play; no slots without a league
    learner_memory: learner_memory.LearnerMemory  # for its next incarnation
    learner_record: record_ring.RecordRing
    checkpoints: str  # folder
    whole: Any  # the config of the run; that above, if there is a single policy
    topology: topology_lib.Topology
    inference: inference_requests.InferenceBlock
    names: name_tables.NameTables  # of the user's numbers: of actors, of policies
    evaluation_record: record_ring.RecordRing
    learner_threads: int
    cores: Cores
    all_actors: int  # of the run, those of all actor hosts included
    hosts: host_board.HostBoard | None = None  # of the actor hosts, if there are any
    first_actor: int = 0  # number of actor 0 here among all; on an actor host
    host_incarnation: int = 0  # of this actor host, from 1; 0 where the learner is
    port: int = 0  # where the ranks of the learner meet, if there are several
    profile_updates: int = 0
    run: int = (
        0  # number of the run in its folder; 0 in lockstep, which is deterministic
    )
    population: population_block.PopulationBlock | None = None  # if there is one

    @property
    def folder(self) -> str:
        """The run's folder. One of several policies has policies/NAME there."""
        own = os.path.dirname(self.checkpoints)
        return os.path.dirname(os.path.dirname(own)) if self.policy else own

    @property
    def actor_names(self) -> list[name_tables.NameTable]:
        """Tables of the user's numbers that each of the policy's actors has."""
        tables, here = self.names.tables, len(self.topology.actors)
        if self.host_incarnation:
            return tables[: self.all_actors]
        own = [tables[s.index] for s in self.topology.actors_of(self.number)]
        return [*own, *tables[here : self.all_actors]]

    @property
    def learner_names(self) -> list[name_tables.NameTable]:
        """Tables of the user's numbers in the policy's games, by rank."""
        num_ranks = len(self.control.books)
        first = self.all_actors + self.number * num_ranks
        return self.names.tables[first : first + num_ranks]

    @property
    def num_actors(self) -> int:
        """Number of the policy's actors in the run, those of hosts included."""
        if self.host_incarnation:
            return self.all_actors
        own, here = self.topology.actors_of(self.number), len(self.topology.actors)
        return len(own) + self.all_actors - here

    def actors_of_host(self, host: int) -> range:
        """Returns the numbers of the actors of an actor host."""
        here = len(self.topology.actors)
        size = (self.all_actors - here) // self.topology.num_hosts
        return range(here + host * size, here + (host + 1) * size)

    def actor_incarnation(self, incarnation: int) -> int:
        """Returns the number of an actor's incarnation that no other life has.

        The incarnations of an actor host count, too.
        """
        return self.host_incarnation * _PER_HOST + incarnation

    def row(self, seat: topology_lib.Seat) -> control_block.ProcessRow:
        """Returns the words of one seat's processes."""
        return self.control.row(seat.row)

    def seeds(
        self, role: str, index: int = 0, incarnation: int = 0
    ) -> np.random.SeedSequence:
        """Returns the seeds of one incarnation in one run, which no other has."""
        return seeding.sequence(self.config.seed, role, index, incarnation, self.run)
