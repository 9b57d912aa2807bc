"""One seat of the supervisor and its process: starts, signs of life, deaths."""

import contextlib
import math
import os
import random
import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from impala_mp.config import user_code
from impala_mp.runtime import (
    entry_points,
    fork_server,
    pidfd,
    resources,
    restart_policy,
    signals,
)
from impala_mp.storage import files
from impala_mp.transport import control_block, shared as shared_lib, topology

_ORPHANED = 255  # multiprocessing's exit code of a child that it lost
_GONE_SECS = 5.0  # until SIGKILL takes effect
_END_SECS, _KILL_SECS = 0.5, 1.5  # after the order to print the stacks

# Fields of config.health that limit the silence of a process, by state. A waiting
# process beats five times a second: waiting is no reason for silence.
_LIMITS = {
    control_block.State.NOT_STARTED: "start_secs",
    control_block.State.STARTING: "start_secs",
    control_block.State.RESETTING: "reset_secs",
}


class ChildProcess:
    """Processes that follow each other in one seat."""

    def __init__(
        self,
        seat: topology.Seat,
        log: str,
        policies: Sequence[shared_lib.Shared],
        jitter: random.Random,
    ) -> None:
        self.seat, self.log, self._policies = seat, log, policies
        self._shared = shared = policies[0]
        self._health = shared.config.health
        self.row = shared.row(seat)
        self.process: Any = None
        self.incarnation = -1
        self.policy = restart_policy.RestartPolicy(seat.role, self._health, jitter)
        self.verdict: restart_policy.Verdict = restart_policy.Wait(0.0)
        self.restart_at = -math.inf  # monotonic; meaningful while there is no process
        self.has_run = self.done = False
        self.lost = False  # its budget is spent, and the run continues without it
        self.reason = ""  # of the last death
        self.error = ""  # that ended it, with the user's line; "" for no exception
        self.deaths = 0
        self._started_at = math.inf  # monotonic; not started yet
        self._log_start = self._steps_at_start = self._finished_before = 0
        self._orders: list[tuple[float, signal.Signals]] = []  # when to send what
        self._hung = ""  # why they were given
        self._excused = (0, 0.0)  # heartbeat, and seconds left out of the silence since
        self._pidfd = -1
        # Whether a rank of the learner may still come, for which others wait.
        self.may_wait: Callable[[], bool] = lambda: False

    @property
    def name(self) -> str:
        role = self.seat.role
        alone = role == "learner" and len(self._shared.topology.learners) == 1
        return role if alone else f"{role} {self.seat.index}"

    @property
    def title(self) -> str:
        return f"{self.name} (incarnation {self.incarnation})"

    @property
    def restarts(self) -> int:
        return max(0, self.incarnation)

    def start(self, context: Any, life: Any) -> None:
        """Starts the next incarnation, or records a death.

        Raises:
          OSError: there is no room for a process.
          EOFError: the fork server died just now.
        """
        self.incarnation += 1
        self._log_start = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        self._started_at = time.monotonic()
        self._steps_at_start = self.row.get("agent_steps")
        self._finished_before = self.row.get("finished")
        self._orders, self._hung = [], ""
        self.row.beat(control_block.State.NOT_STARTED)
        process = context.Process(
            target=entry_points.main,
            args=(self.seat, self.incarnation, self.log, self._policies, life),
            name=self.name,
        )
        try:
            _leave_deleted_folder()
            fork_server.start()  # a new one if it has died
            process.start()
            self._watch(process)
        except (OSError, EOFError) as error:
            reason = f"could not be started ({error!r})"
            self.record_death(reason, lived_secs=0.0, was_running=False)
            raise

    def _watch(self, process: Any) -> None:
        try:
            self._pidfd = pidfd.of(process.pid)
        except ProcessLookupError:
            pass  # it has died already
        except OSError:
            process.kill()
            raise
        self.process = process

    # Signs of life.

    def describe(self) -> str:
        """Returns its state in one word, for health.json."""
        if self.lost or self.done:
            return "lost" if self.lost else "ended"
        if self.process is None:
            return "restarting" if self.deaths else "not_started"
        if self._hung or self._silent_for(self._limit()):
            return "hung"
        running = self.row.state == control_block.State.RUNNING
        if running and self._silent_for(self._health.slow_secs):
            return "slow"
        return self.row.state.name.lower()

    def _limit(self) -> float:
        state = self.row.state
        if state == control_block.State.WAITING_FOR_RANKS and self.may_wait():
            return math.inf
        limit: float = self._health[_LIMITS.get(state, "hang_secs")]
        return limit

    def _silent_for(self, seconds: float) -> bool:
        return self.silence_secs() > seconds

    def silence_secs(self) -> float:
        """Returns the time since its last heartbeat, without pauses of the run."""
        heartbeat, secs = self._excused
        excused = secs if heartbeat == self.row.get("heartbeat_ns") else 0.0
        return self.row.heartbeat_age_secs() - excused

    def excuse(self, secs: float) -> None:
        """Leaves `secs` out of its silence, in which the supervisor was paused, too."""
        heartbeat, before = self._excused
        newest = self.row.get("heartbeat_ns")
        total = secs + before * (heartbeat == newest)
        self._excused = (newest, min(total, self.row.heartbeat_age_secs()))

    def is_hung(self) -> bool:
        """Returns whether it has been silent for longer than its state allows."""
        return not self._hung and self._silent_for(self._limit())

    def terminate(self) -> str:
        """Orders its end in three steps; returns a sentence with the reason.

        The steps are the stacks into its log, a signal that ends it, and SIGKILL.
        `escalate` sends each when it is due, so that nothing waits for a hung process.
        """
        now, state = time.monotonic(), self.row.state
        self._orders = [(now + _END_SECS, entry_points.END)]
        self._orders.append((now + _KILL_SECS, signal.SIGKILL))
        if state > control_block.State.NOT_STARTED:  # before, no handler would take it
            self._orders.insert(0, (now, signal.SIGUSR1))
        self._hung = (
            f"was silent for {self.silence_secs():.0f} s while {state.name.lower()}"
        )
        return f"{self.title} {self._hung}. It is ended; its stacks go to {self.log}."

    def escalate(self) -> None:
        """Sends the orders that are due."""
        while self._orders and self._orders[0][0] <= time.monotonic():
            self._send(self._orders.pop(0)[1])

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                pidfd.send_signal(self._pidfd, number)

    def next_due(self) -> float:
        """Returns the monotonic time of the next restart or order, or infinity."""
        if self.done or self.lost:
            return float("inf")
        if self.process is None:
            return self.restart_at
        return self._orders[0][0] if self._orders else float("inf")

    # Death.

    def reap(self) -> int:
        """Records a death; returns the exit code."""
        code: int = self.process.exitcode
        self.close()
        was_running = self.row.state not in control_block.NOT_YET_RUNNING
        self.has_run = self.has_run or was_running
        self.row.beat(control_block.State.NOT_STARTED)
        reason = (self._hung or cause(code)) + self._place()
        explained = self.error = self.explain()
        if explained:
            reason += f" {explained}" if explained[0] == "(" else f": {explained}"
        self.record_death(reason, time.monotonic() - self._started_at, was_running)
        return code

    def record_death(self, reason: str, lived_secs: float, was_running: bool) -> None:
        """Keeps the reason and the policy's verdict; sets the time of the restart."""
        now = time.monotonic()
        self.reason = reason
        self.deaths += 1
        self.verdict = self.policy.after_death(
            now, lived_secs, was_running, self._num_finished
        )
        if isinstance(self.verdict, restart_policy.Wait):
            self.restart_at = now + self.verdict.secs

    def end_with(self, other: "ChildProcess") -> None:
        """Kills the process, if there is one, and waits for the restart of `other`."""
        if self.process is not None:
            self._send(signal.SIGKILL)
            self.process.join(_GONE_SECS)
            self.close()
            self.deaths += 1
        self.row.beat(control_block.State.NOT_STARTED)
        self.reason = self.error = ""
        if other.reason:
            self.reason = f"ended, because {other.name} {other.reason}"
        self.incarnation, self.restart_at = other.incarnation, other.restart_at
        self._orders, self._hung, self.done = [], "", False

    def close(self) -> None:
        """Kills the process if it still lives, and releases it.

        If the fork server dies, the ends of its children are lost while they live on.
        Two processes in one seat would write to the same ring.
        """
        if self._pidfd >= 0:
            self._send(signal.SIGKILL)
            gone = select.poll()  # select() takes no descriptor above 1,023
            gone.register(self._pidfd, select.POLLIN)
            gone.poll(_GONE_SECS * 1000)
            os.close(self._pidfd)
            self._pidfd = -1
        self.process.close()
        self.process = None

    def _place(self) -> str:
        """Returns where an actor died, so that its seeds can be tried by hand."""
        if self.seat.role != "actor":
            return ""
        seed = self._shared.config.seed
        return (
            f" after {self.steps:,} agent steps (seeds of {seed}, actor"
            f" {self.seat.index}, incarnation {self.incarnation} of run"
            f" {self._shared.run})"
        )

    @property
    def steps(self) -> int:
        """Agent steps of its newest incarnation."""
        return self.row.get("agent_steps") - self._steps_at_start

    @property
    def _num_finished(self) -> int:
        """Units of work that its newest incarnation has finished."""
        return self.row.get("finished") - self._finished_before

    @property
    def fruitless_lives(self) -> int:
        """Lives in a row, up to now, in which it was running and finished nothing."""
        return 0 if self._num_finished else self.policy.fruitless_lives

    def output(self) -> str:
        """Returns the output of this incarnation, its traceback included.

        "" if it wrote nothing, or the disk was full.
        """
        try:
            with files.open_to_read(self.log) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - 8000))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def explain(self) -> str:
        """Returns the cause of its death and the user's line, by its output; or ""."""
        text = self.output()
        found = re.findall(f"^{entry_points.CAUSE}(.*)$", text, re.MULTILINE)
        return found[-1].strip() if found else _explain_stacks(text)

    @property
    def signature(self) -> tuple[str, str]:
        """Kind of the error that ended it, and its place; ("", "") for no exception.

        The message is left out, because numbers in it may differ.
        """
        return self.error.partition(":")[0], self.error.rpartition(" (")[2]

    def traceback(self) -> str:
        """Returns the last traceback in its output, with the user's frames only."""
        lines = self.output().splitlines(keepends=True)
        return user_code.shortened(
            "".join(x for x in lines if not x.startswith(entry_points.CAUSE))
        )

    def refusal(self) -> str:
        """Returns the sentence with which it ended, or why it died if that is lost."""
        return self.explain() or self.reason


def _explain_stacks(text: str) -> str:
    """Returns the fatal error and the user's line in the output of faulthandler."""
    fatal = re.findall("^Fatal Python error: .*$", text, re.MULTILINE)
    _, _, stack = text.rpartition("Current thread ")
    stack = stack.partition("\n\n")[0]  # other threads follow
    frames = re.findall(r'^  File "(.*)", line (\d+) in (.*)$', stack, re.MULTILINE)
    place = user_code.place([(file, int(n), name) for file, n, name in frames[::-1]])
    return f"{fatal[-1] if fatal else ''}{place}".strip()


def _leave_deleted_folder() -> None:
    """Changes to the root if the current folder is gone: no child could start there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir("/")


def cause(code: int) -> str:
    """Returns why a process ended, by its exit code."""
    if code == _ORPHANED:
        return "was lost with the fork server"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signals.name_of(-code)
    if name in ("SIGXCPU", "SIGKILL") and resources.cpu_limit():
        name += ", perhaps at the limit of CPU time (`ulimit -t`)"
    return f"was killed by {name}"
