"""Topology of a run: one seat per process, with its row, its rings and its doorbell.

Each policy has a parameter store and a set of rings. Ring i of each set is written by
the policy's actor i and read by one learner: the one with that policy and with the
actor's rank. Learners, actors, the inference server and the receiver have one doorbell
each, for all of their rings.

An actor host has one ring for all of its actors, after the rings of the actors here.
The receiver writes them. Hosts are dealt to the ranks in turn.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Seat:
    """One place in the run. The processes of a seat follow each other."""

    role: str  # learner, actor, evaluator, inference or receiver
    index: int  # among the seats of its role
    row: int  # in the control block
    policies: tuple[int, ...] = (0,)  # that it acts with, or learns
    rank: int = 0  # of a learner, or of the learners that read this actor's rings


@dataclasses.dataclass(frozen=True)
class Topology:
    """All seats of a run. Picklable to a child."""

    seats: tuple[Seat, ...]  # by row
    num_hosts: int = 0  # actor hosts

    def of(self, role: str) -> tuple[Seat, ...]:
        """Returns the seats of one role, by index."""
        return tuple(seat for seat in self.seats if seat.role == role)

    @property
    def num_policies(self) -> int:
        return len({policy for seat in self.seats for policy in seat.policies})

    @property
    def actors(self) -> tuple[Seat, ...]:
        return self.of("actor")

    @property
    def learners(self) -> tuple[Seat, ...]:
        return self.of("learner")

    def learner(self, policy: int = 0, rank: int = 0) -> Seat:
        """Returns the learner of one policy and rank.

        Rank 0 publishes the policy's parameters and writes its checkpoints.
        """
        (seat,) = (s for s in self.learners if policy in s.policies and s.rank == rank)
        return seat

    def actors_of(self, policy: int = 0) -> tuple[Seat, ...]:
        """Returns the actors that act with a policy, by the numbers of its rings."""
        return tuple(seat for seat in self.actors if policy in seat.policies)

    def rings(self, policy: int = 0, rank: int = 0) -> tuple[int, ...]:
        """Returns the numbers of the policy's rings that one rank reads."""
        readers = enumerate(self.readers(policy))
        return tuple(number for number, reader in readers if reader == rank)

    def readers(self, policy: int = 0) -> tuple[int, ...]:
        """Returns the rank that reads each of the policy's rings, by ring."""
        here = tuple(seat.rank for seat in self.actors_of(policy))
        num_ranks = 1 + max(here)
        return (*here, *(host % num_ranks for host in range(self.num_hosts)))

    def bells(self, policy: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the rows whose doorbells the policy's rings ring.

        Returns:
          Those of the readers by rank, and of the writers by ring. On an actor host the
          reader has no seat, and -1 stands for it.
        """
        readers = [s.row for s in self.learners if policy in s.policies] or [-1]
        here = [s.row for s in self.actors_of(policy)]
        receivers = [s.row for s in self.of("receiver")]
        return tuple(readers), (*here, *receivers * self.num_hosts)

    @property
    def host_rings(self) -> tuple[int, ...]:
        """Returns the numbers of the rings of the actor hosts, by host."""
        first = len(self.actors)
        return tuple(range(first, first + self.num_hosts))


def make(
    num_actors: int,
    evaluator: bool = False,
    inference: bool = False,
    num_policies: int = 1,
    num_groups: int = 1,
    num_ranks: int = 1,
    apart: bool = False,
    num_hosts: int = 0,
) -> Topology:
    """Deals out the seats: learners first, then actors, then what there is of others.

    Args:
      num_actors: each acts with every policy, and is dealt to one rank. The actors of
        a rank are neighbours.
      apart: actor i acts with policy i alone, modulo their number.
      evaluator: whether there is one.
      inference: whether there is an inference server.
      num_policies: dealt to the groups in turn.
      num_groups: of learners. A learner takes the policies of its group in turn.
      num_ranks: learners in a group. Each learns from a share of every batch.
      num_hosts: actor hosts. A receiver fetches their slots.
    """
    everything = tuple(range(num_policies))
    learners = [
        (everything[group::num_groups], rank)
        for group in range(num_groups)
        for rank in range(num_ranks)
    ]
    actors = [
        ((i % num_policies,) if apart else everything, i * num_ranks // num_actors)
        for i in range(num_actors)
    ]
    dealt = [
        *(("learner", i, *each) for i, each in enumerate(learners)),
        *(("actor", i, *each) for i, each in enumerate(actors)),
        *[("evaluator", 0, everything, 0)] * evaluator,
        *[("inference", 0, everything, 0)] * inference,
        *[("receiver", 0, everything, 0)] * bool(num_hosts),
    ]
    return Topology(
        tuple(
            Seat(role, index, row, policies, rank)
            for row, (role, index, policies, rank) in enumerate(dealt)
        ),
        num_hosts,
    )


def of_host(num_actors: int, num_policies: int = 1) -> Topology:
    """Returns the seats on an actor host: actors alone."""
    everything = tuple(range(num_policies))
    return Topology(tuple(Seat("actor", i, i, everything) for i in range(num_actors)))
