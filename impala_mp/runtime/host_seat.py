"""One seat for an actor host: its calls, deaths and budget.

The processes of a seat follow each other. Ray starts them; this decides when one must
be killed, and when the seat is given up.
"""

import math
import random
import time
from typing import Any, Protocol

import numpy as np

from impala_mp import errors
from impala_mp.runtime import restart_policy
from impala_mp.transport import host_messages
from impala_mp.workers import host_link, host_links

_UNREACHABLE_SECS = 3.0  # without an answer, until its state is that
_RETRY_SECS = 0.2  # after a failed call
_MISSING = ("ModuleNotFoundError", "ImportError")


class Engine(Protocol):
    """Part of `ray_engine.Engine` that a seat needs."""

    def hire(self, task: host_messages.Task) -> None: ...

    def call(self, seat: int, number: int, asked: host_messages.Asked) -> None: ...

    def kill(self, seat: int, restart: bool = True) -> None: ...

    def is_leaving(self, place: str) -> bool: ...


class HostSeat:
    """A seat, from the receiver's start to its end."""

    def __init__(
        self,
        links: host_links.HostLinks,
        task: host_messages.Task,
        engine: Engine,
        health: Any,
    ) -> None:
        """`health` is config.health."""
        self._health = health
        self._policy = restart_policy.RestartPolicy("host", health, random.Random(0))
        self.links, self._task, self._engine = links, task, engine
        self.lost = False  # its budget is spent
        self.reason = ""  # of the last death
        self.node, self._place = "", ""  # the name of its node, and the engine's id
        self.deaths = 0
        self._stops = False  # the run does
        self._leaves = False  # its node is to end: it stops, and another one begins
        # Until then, or the first answer of the next one, it may end without a death.
        self._moves_until = -math.inf  # monotonic
        self._called = math.nan  # monotonic time of the call in flight; nan: none
        self._num_calls = 0
        self._retry_at = 0.0
        self._hired = False
        self._lives_since = math.nan  # monotonic; nan: no answer in this life
        self._arrived = links.arrived  # at its begin
        self._rates = {"steps_per_sec": 0.0, "wire_mb_per_sec": 0.0}
        self._before: tuple[float, dict[str, int]] = (time.monotonic(), {})

    @property
    def is_alive(self) -> bool:
        """True if this life has answered."""
        return not math.isnan(self._lives_since)

    @property
    def is_over(self) -> bool:
        """True if there is no more to come at the end of a run."""
        return self.lost or self.links.drained

    def turn(self, now: float, stop: bool) -> None:
        """Asks the host, unless a call is in flight; kills it if it hangs."""
        self._stops = stop
        if self.lost:
            return
        if not math.isnan(self._called):
            self._look(now)
            return
        if now < self._retry_at:
            return
        if not self._hired:
            self._engine.hire(self._task)
            self._hired = True
        if self.is_alive and not stop and self._engine.is_leaving(self._place):
            if self.links.state in ("joining", host_messages.STARTING):
                self._move(now)
                return
            self._leaves = True
        asked = self.links.question(now, stop or self._leaves)
        if asked:
            self._called = now
            self._num_calls += 1
            self._engine.call(self._task.seat, self._num_calls, asked)

    def _look(self, now: float) -> None:
        """Kills a host that has lived and is silent for too long."""
        silent = now - self._called
        joining = self.links.state in ("joining", host_messages.STARTING)
        limit = self._health["start_secs" if joining else "hang_secs"]
        if self.is_alive and silent > limit:
            self._engine.kill(self._task.seat)
            self._died(f"was silent for {silent:.0f} s", now)

    def take(self, answer: Any, now: float) -> int:
        """Takes in the end of a call; returns the number of slots that arrived.

        Raises:
          BadInput: the host cannot take part.
        """
        if self.lost or math.isnan(self._called) or answer.number != self._num_calls:
            return 0  # to a process that was given up
        called, self._called = self._called, math.nan
        if not answer.replies:
            self._failed(answer, now)
            return 0
        first = answer.replies[0]
        if now < self._moves_until and first.state != host_messages.NEW:
            self._engine.kill(self._task.seat)  # the old process still answers
            self._retry_at = now + _RETRY_SECS
            return 0
        if not self.is_alive:
            self._lives_since, self._arrived = now, self.links.arrived
            self._moves_until = -math.inf
        self.node = first.node or self.node
        self._place = first.place
        head = self.links.arrived
        try:
            self.links.accept(answer.replies, called, now)
            self._check_start(now)
            if self._leaves and self.links.drained and not self._stops:
                self._move(now)
        except host_link.Restart as why:
            self._engine.kill(self._task.seat)
            self._died(str(why), now)
        except errors.BadInput as error:
            raise errors.BadInput(f"{self._title}: {error}") from error
        return self.links.arrived - head

    def _move(self, now: float) -> None:
        """Lets Ray start the host on another node; nothing is lost with this one."""
        print(f"{self._title} leaves its node, which is to end.", flush=True)
        self._engine.kill(self._task.seat)
        self._end_life()
        self._moves_until = now + self._health.start_secs

    def _end_life(self) -> None:
        self._lives_since = self._called = math.nan
        self._leaves, self._moves_until = False, -math.inf
        self.links.lost_contact()

    def _check_start(self, now: float) -> None:
        """Raises Restart if the actors do not start in time."""
        limit = self._health.start_secs + self._health.reset_secs
        if (
            self.links.state == host_messages.STARTING
            and now - self._lives_since > limit
        ):
            raise host_link.Restart(f"did not start within {limit:.0f} s")

    @property
    def _title(self) -> str:
        return f"host {self._task.seat}{f' ({self.node})' if self.node else ''}"

    def _failed(self, answer: Any, now: float) -> None:
        """Handles a call without a reply.

        Raises:
          BadInput: the package is missing there.
        """
        if any(name in answer.error for name in _MISSING):
            raise errors.BadInput(
                f"{self._title} cannot start: {answer.error}. Install impala_mp and the"
                " environment on all nodes, or send them by Ray's runtime_env."
            )
        gone = answer.is_gone and now >= self._moves_until
        if self.is_alive or gone:
            self._died(f"died ({answer.error})", now)
        self.links.lost_contact()
        self._hired &= not answer.is_gone
        self._retry_at = max(self._retry_at, now + _RETRY_SECS)

    def refuse(self, reason: str, now: float) -> None:
        """Ends a process that cannot take part."""
        self._engine.kill(self._task.seat)
        self._died(reason, now)

    def _died(self, reason: str, now: float) -> None:
        """Counts a death; gives the seat up when its budget is spent."""
        lived = now - self._lives_since if self.is_alive else 0.0
        arrived = self.links.arrived - self._arrived
        running = self.is_alive and self.links.state == host_messages.RUNNING
        verdict = self._policy.after_death(now, lived, running or arrived > 0, arrived)
        self.deaths += 1
        self.reason = reason
        print(f"{self._title} {reason}.", flush=True)
        self._end_life()
        if isinstance(verdict, restart_policy.GiveUp):
            self.lost, self.reason = True, f"{reason}, and {verdict.reason}"
            self._engine.kill(self._task.seat, restart=False)
            return
        self._retry_at = now + max(_RETRY_SECS, verdict.secs)

    def dismiss(self) -> None:
        """Ends the host for good."""
        if self._hired:
            self._engine.kill(self._task.seat, restart=False)

    # What is shown.

    def status(self, now: float) -> dict[str, Any]:
        """Returns the state as in health.json."""
        counters, ages = self.links.counters, self.links.ages()
        self._update_rates(now, counters)
        silent = 0.0 if math.isnan(self._called) else now - self._called
        counts = self.links.counts()
        waits = not self.links.room and self.links.state == host_messages.RUNNING
        state = "waiting_for_slot" if waits else self.links.state
        if self.is_alive and silent > _UNREACHABLE_SECS:
            state = "unreachable"
        wire = counters.get("wire_bytes", 0)
        return {
            "seat": self._task.seat,
            "node": self.node,
            "pid": counters.get("pid", 0),
            "state": "lost" if self.lost else state,
            "incarnation": self.links.incarnation,
            "actors_alive": counters.get("alive", 0),
            "actors": counters.get("actors", 0),
            "actor_restarts": counters.get("actor_restarts", 0),
            "bad_data": counters.get("bad_data", 0),
            **self._rates,
            "compression": round(counters.get("raw_bytes", 0) / wire, 2) if wire else 0,
            **counts._asdict(),
            "age_p50_secs": round(float(np.median(ages)), 4) if ages else 0,
            "age_p99_secs": round(float(np.percentile(ages, 99)), 4) if ages else 0,
            "lag": self.links.lag,
            "silent_secs": round(silent, 2),
            "restarts": self.deaths,
            "reason": self.reason,
        }

    def _update_rates(self, now: float, counters: dict[str, int]) -> None:
        before, old = self._before
        seconds = now - before
        if seconds < 1.0:
            return
        self._before = (now, counters)
        grown = {
            name: max(0, counters.get(name, 0) - old.get(name, 0))
            for name in ("agent_steps", "wire_bytes")
        }
        self._rates = {
            "steps_per_sec": round(grown["agent_steps"] / seconds, 1),
            "wire_mb_per_sec": round(grown["wire_bytes"] / seconds * 1e-6, 4),
        }
