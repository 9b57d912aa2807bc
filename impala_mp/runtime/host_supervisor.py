"""Supervisor of an actor host: actors alone, in a thread of the host's process."""

import contextlib
import time
from collections.abc import Callable, Sequence

from impala_mp.monitoring import health
from impala_mp.runtime import child_process, supervisor
from impala_mp.transport import shared as shared_lib, topology

_LIVES = 1_000  # of one actor; more would have the numbers of another host's life


class HostSupervisor(supervisor.Supervisor):
    """Runs the actors of one incarnation of a host, until `stop`."""

    def __init__(
        self,
        policies: Sequence[shared_lib.Shared],
        logs: str,
        report: Callable[[str], None],
    ) -> None:
        super().__init__(policies, logs, report, self._keep)
        self._newest: list[health.Status] = []
        for end in (self._wakeup, self._wakeup_writer):
            end.setblocking(False)

    def _keep(self, statuses: list[health.Status]) -> None:
        self._newest = statuses[1:]

    def stop(self) -> None:
        """Ends the run; any thread may call it."""
        self._stop_requested = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended just now
            self._wakeup_writer.send(b"\0")

    def counters(self) -> dict[str, int]:
        """Returns numbers of the actors, for the learner's host."""
        rows = [self._shared.row(seat) for seat in self._shared.topology.actors]
        bad = ("bad_rewards", "bad_observations")
        return {
            "actors": len(rows),
            "alive": sum(child.process is not None for child in self._children),
            "actor_restarts": sum(child.restarts for child in self._children),
            "agent_steps": sum(row.get("agent_steps") for row in rows),
            "bad_data": sum(row.get(name) for row in rows for name in bad),
            "wait_ms": sum(row.get("wait_ns") for row in rows) // 10**6,
        }

    def _install_signal_handlers(self) -> Callable[[], None]:
        """Installs none: signals belong to the host's main thread."""
        return lambda: None

    def _is_finished(self) -> bool:
        return False

    def _report_stop(self) -> None:
        """Reports nothing: the learner's host does."""

    def _are_enough(self, left: Sequence[topology.Seat]) -> bool:
        return bool(left)  # the learner has other actors, too

    def _start(self, child: child_process.ChildProcess) -> None:
        if child.incarnation + 1 >= _LIVES:
            raise supervisor.ChildFailed(
                f"{child.title} was restarted {_LIVES:,} times. The host is restarted."
            )
        super()._start(child)
