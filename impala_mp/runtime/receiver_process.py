"""Receiver: fetches the slots of all actor hosts into their rings here.

It asks each host in turn with one call at a time, so a host that is not asked can do no
harm. It may die at any time: hosts are found again by name.
"""

import hashlib
import os
import socket
import time
from collections.abc import Sequence

from impala_mp import errors
from impala_mp.config import fields
from impala_mp.runtime import allocation, host_seat, ray_engine
from impala_mp.transport import (
    control_block,
    doorbell,
    host_messages,
    shared as shared_lib,
)
from impala_mp.workers import host_facts, host_link, host_links

_WAIT_SECS = 0.1  # longest sleep
_BOARD_SECS = 0.5  # between two states of the hosts
_DRAIN_SECS = 2.0  # at the end of a run, to fetch what is on its way


class Receiver:
    """The process that fetches."""

    def __init__(
        self, policies: Sequence[shared_lib.Shared], row: control_block.ProcessRow
    ) -> None:
        self._policies, self._row = policies, row
        self._shared = shared = policies[0]
        config = shared.whole
        row.beat(control_block.State.STARTING)
        self._engine = ray_engine.Engine(
            config.cluster.address, namespace(shared), config.cluster.cores
        )
        row.beat(control_block.State.STARTING)
        self._sources = [host_link.Source(x.store, x.control) for x in policies]
        specs = {each.policy: each.environment for each in policies}
        made = allocation.without_checks(config, specs)
        facts = [allocation.facts_of_all([each]) for each in made]
        text = fields.to_json(config)
        self.seats = [
            host_seat.HostSeat(
                self._links(k, facts), self._task(k, text), self._engine, config.health
            )
            for k in range(config.cluster.hosts)
        ]
        self._bell = shared.rings.actor_doorbells[self._rings()[0]]

    def _rings(self) -> tuple[int, ...]:
        return self._shared.topology.host_rings

    def _links(
        self, host: int, facts: Sequence[host_facts.Facts]
    ) -> host_links.HostLinks:
        actors = self._shared.actors_of_host(host)
        names = self._shared.actor_names[actors.start : actors.stop]
        links = []
        for shared, source, own in zip(
            self._policies, self._sources, facts, strict=True
        ):
            assert shared.hosts is not None
            ring = shared.rings.ring(self._rings()[host])
            link = host_link.HostLink(
                actors,
                ring,
                shared.hosts.books(host, ring, shared.number),
                names if shared is self._shared else [],
                source,
                own,
                shared.config.cluster.publish_secs,
            )
            links.append(link)
        return host_links.HostLinks(links)

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
            doorbell.wait_for_any([self._engine.bell, self._bell], _WAIT_SECS)
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
            if not any(each.links.arrived for each in self.seats):
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
        self._shared.hosts.publish([seat.status(now) for seat in self.seats])

    def close(self) -> None:
        self._engine.close()


def namespace(shared: shared_lib.Shared) -> str:
    """Returns Ray's namespace of one run, which no other run has."""
    place = f"{socket.gethostname()}:{os.path.realpath(shared.folder)}"
    digest = hashlib.sha256(place.encode()).hexdigest()[:12]
    return f"impala-{digest}-{shared.run}"
