"""Receiver: fetches the slots of all actor hosts into their rings here.

It asks each host in turn with one call at a time, so a host that is not asked can do no
harm. It may die at any time: hosts are found again by name.
"""

import hashlib
import os
import socket
import time

from impala_mp import errors
from impala_mp.config import fields
from impala_mp.networks import agent
from impala_mp.runtime import allocation, host_seat, ray_engine
from impala_mp.transport import (
    control_block,
    doorbell,
    host_messages,
    shared as shared_lib,
)
from impala_mp.workers import host_facts, host_link

_WAIT_SECS = 0.1  # longest sleep
_BOARD_SECS = 0.5  # between two states of the hosts
_DRAIN_SECS = 2.0  # at the end of a run, to fetch what is on its way


class Receiver:
    """The process that fetches."""

    def __init__(
        self, shared: shared_lib.Shared, row: control_block.ProcessRow
    ) -> None:
        self._shared, self._row = shared, row
        config = shared.config
        row.beat(control_block.State.STARTING)
        self._engine = ray_engine.Engine(
            config.cluster.address, namespace(shared), config.cluster.cores
        )
        row.beat(control_block.State.STARTING)
        self._source = host_link.Source(shared.store, shared.control)
        facts, text = self._facts(), fields.to_json(config)
        self.seats = [
            host_seat.HostSeat(
                self._link(k, facts), self._task(k, text), self._engine, config.health
            )
            for k in range(config.cluster.hosts)
        ]
        self._bells = [shared.rings.actor_doorbells[n] for n in self._rings()]

    def _rings(self) -> tuple[int, ...]:
        return self._shared.topology.host_rings

    def _facts(self) -> host_facts.Facts:
        shared = self._shared
        made = agent.make(shared.config, shared.environment)
        return allocation.facts(
            allocation.Policy("", shared.config, shared.live, shared.environment, made)
        )

    def _link(self, host: int, facts: host_facts.Facts) -> host_link.HostLink:
        shared = self._shared
        assert shared.hosts is not None
        ring = shared.rings.ring(self._rings()[host])
        actors = shared.actors_of_host(host)
        return host_link.HostLink(
            host,
            actors,
            ring,
            shared.hosts.books(host, ring),
            shared.actor_names[actors.start : actors.stop],
            self._source,
            facts,
            shared.config.cluster.publish_secs,
        )

    def _task(self, host: int, text: str) -> host_messages.Task:
        shared, actors = self._shared, self._shared.actors_of_host(host)
        return host_messages.Task(
            host,
            f"{namespace(shared)}-host-{host}",
            text,
            shared.run,
            (actors.start, len(actors)),
            shared.all_actors,
        )

    def run(self) -> None:
        """Fetches until the run stops.

        Raises:
          BadInput: a host cannot take part.
          RunFailed: too few hosts are left.
        """
        control, end, board = self._shared.control, float("inf"), 0.0
        while not self._is_over(end):
            now = time.monotonic()
            if control.stopping and end == float("inf"):
                end = now + _DRAIN_SECS
            for seat in self.seats:
                seat.turn(now, stop=control.stopping)
            if now >= board:
                self._publish(now)
                board = now + _BOARD_SECS
            doorbell.wait_for_any([self._engine.bell, *self._bells], _WAIT_SECS)
            self._row.beat(control_block.State.RUNNING)
            for answer in self._engine.answers():
                self._take(answer)
            self._count_seats()
        for seat in self.seats:
            seat.dismiss()
        self._publish(time.monotonic())

    def _is_over(self, end: float) -> bool:
        over = all(seat.is_over for seat in self.seats)
        return time.monotonic() >= end or (over and self._shared.control.stopping)

    def _take(self, answer: ray_engine.Answer) -> None:
        """Takes in the end of a call.

        Raises:
          BadInput: a host cannot take part, and no other one ever did.
        """
        seat, now = self.seats[answer.seat], time.monotonic()
        try:
            self._row.add("finished", seat.take(answer, now))
        except errors.BadInput as error:
            if not any(each.link.ring.head for each in self.seats):
                raise
            seat.refuse(str(error), now)

    def _count_seats(self) -> None:
        """Raises RunFailed if too few hosts are left."""
        left = sum(not seat.lost for seat in self.seats)
        least = self._shared.config.health.min_hosts
        if left < least:
            reasons = "; ".join(seat.reason for seat in self.seats if seat.lost)
            raise errors.RunFailed(
                f"{left} actor hosts are left (config.health.min_hosts={least})."
                f" {reasons}"
            )

    def _publish(self, now: float) -> None:
        """Publishes the state of each host."""
        assert self._shared.hosts is not None
        newest = self._shared.store.latest
        self._shared.hosts.publish([seat.status(now, newest) for seat in self.seats])

    def close(self) -> None:
        self._engine.close()


def namespace(shared: shared_lib.Shared) -> str:
    """Returns Ray's namespace of one run, which no other run has."""
    place = f"{socket.gethostname()}:{os.path.realpath(shared.folder)}"
    digest = hashlib.sha256(place.encode()).hexdigest()[:12]
    return f"impala-{digest}-{shared.run}"
