"""Health monitor: starts the children, restarts dead ones, ends all in time."""

import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from impala_mp import errors
from impala_mp.config import derived
from impala_mp.monitoring import health
from impala_mp.runtime import (
    child_process,
    death_reports,
    entry_points,
    learner_groups,
    life_pipe,
    restart_policy,
    signals,
)
from impala_mp.transport import shared as shared_lib, topology

_TICK_SECS = 5.0  # at most, for any interval of records
_EVALUATOR_SECS = 5.0  # until its start, so that short runs do without
_ECHO_SECS = 1.0  # `timeout` and Slurm signal a process, then its group
_WAKE_SECS = 0.5  # longest wait, so that a pause of the supervisor is noticed
_PAUSE_SECS = 0.5  # beyond a wait; a longer delay is a pause


class ChildFailed(errors.RunFailed):
    """A child failed past its budget; the text ends with its traceback."""


class Supervisor:
    """Runs the children of one training to its end."""

    def __init__(
        self,
        policies: Sequence[shared_lib.Shared],
        logs: str,
        report: Callable[[str], None],
        tick: Callable[[list[health.Status]], None],
    ) -> None:
        """Calls `report` with sentences for the user, and `tick` every few seconds."""
        self._meeting, policies = learner_groups.meet(policies)
        self._policies, self._report, self._tick = policies, report, tick
        self._shared = shared = policies[0]
        self._health = shared.config.health
        jitter = random.Random(0)
        self._children = [
            child_process.ChildProcess(
                seat,
                os.path.join(logs, f"{seat.role}-{seat.index}.log"),
                policies,
                jitter,
            )
            for seat in shared.topology.seats
        ]
        self._groups = learner_groups.of_learners(self._children)
        self._learned_before = self._num_learned()  # by a run that is resumed
        self._context = multiprocessing.get_context("forkserver")
        self._deaths = death_reports.DeathReports(report)
        self._life = life_pipe.LifePipe()
        self._wakeup, self._wakeup_writer = socket.socketpair()
        self._noticed_at = time.monotonic()  # when a pause was last looked for
        self._stop_requested: float | None = None  # monotonic, of the first signal
        self._stop_now = False  # set by a second signal
        self._state = "running"  # finished, stopped or failed in the end
        # Exit codes of learners that were asked to stop.
        self._last_codes: dict[child_process.ChildProcess, int] = {}

    def run(self) -> bool:
        """Returns True when the training is finished, False when it was stopped.

        Raises:
          ChildFailed: a child failed past its budget.
          BadInput: a child refused its input before the first update.
        """
        restore = self._install_signal_handlers()
        try:
            for child in self._children:
                if child.seat.role == "evaluator" and self._evaluator_can_wait:
                    child.restart_at = time.monotonic() + _EVALUATOR_SECS
                else:
                    self._start(child)
            finished = self._watch()
            self._state = "finished" if finished else "stopped"
        except BaseException:
            self._state = "failed"
            raise
        finally:
            self._end_all()
            self._write_status()
            restore()
            self._life.close()
            self._wakeup.close()
            self._wakeup_writer.close()
        if failure := learner_groups.failure(self._last_codes):
            raise ChildFailed(failure)
        return finished

    @property
    def _learners(self) -> list[child_process.ChildProcess]:
        """Learners that write checkpoints: those of rank 0."""
        seats = self._shared.topology.learners
        return [self._children[seat.row] for seat in seats if seat.rank == 0]

    @property
    def _evaluator_can_wait(self) -> bool:
        return not self._shared.config.evaluation.interval_steps

    def statuses(self) -> list[health.Status]:
        """Returns the status of every process, the supervisor first."""
        mine = health.Status("supervisor", 0, os.getpid(), 0, self._state, 0, 0.0, "")
        return [mine, *(self._status(child) for child in self._children)]

    def _status(self, child: child_process.ChildProcess) -> health.Status:
        alive = child.process is not None
        return health.Status(
            child.seat.role,
            child.seat.index,
            child.process.pid if alive else 0,
            max(0, child.incarnation),
            child.describe(),
            child.restarts,
            round(child.silence_secs(), 3),
            child.reason,
        )

    # Waiting.

    def _install_signal_handlers(self) -> Callable[[], None]:
        def on_signal(number: int, frame: Any) -> None:
            now = time.monotonic()
            if self._stop_requested is None:
                self._stop_requested = now
            elif now - self._stop_requested > _ECHO_SECS:
                self._stop_now = True

        def on_save(number: int, frame: Any) -> None:
            self._shared.control.ask_for_save()

        self._wakeup.setblocking(False)
        self._wakeup_writer.setblocking(False)
        old: dict[int, Any] = {
            number: signal.signal(number, on_signal) for number in signals.ending()
        }
        old[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, on_save)
        old_fd = signal.set_wakeup_fd(
            self._wakeup_writer.fileno(), warn_on_full_buffer=False
        )

        def restore() -> None:
            signal.set_wakeup_fd(old_fd)
            for number, handler in old.items():
                signal.signal(number, handler)

        return restore

    def _watch(self) -> bool:
        interval = min(_TICK_SECS, self._shared.config.logging.interval_secs)
        self._noticed_at = time.monotonic()
        next_tick = self._noticed_at + interval
        while self._stop_requested is None:
            self._wait(next_tick)
            for child in self._children:
                self._attend(child)
                if self._is_finished():
                    return True
            if time.monotonic() >= next_tick:
                self._write_status()
                next_tick = time.monotonic() + interval
        self._report_stop()
        return False

    def _is_finished(self) -> bool:
        return all(learner.done for learner in self._learners)

    def _report_stop(self) -> None:
        self._report(learner_groups.at_stop(self._learners))

    def _wait(self, next_tick: float) -> None:
        """Waits until a child ends, a signal comes, or something is due."""
        running = [c.process.sentinel for c in self._children if c.process]
        dues = [child.next_due() for child in self._children]
        self._wait_for(running, min([next_tick, *dues]))

    def _wait_for(self, sentinels: list[int], due: float) -> float:
        """Waits for a sentinel, a signal or the monotonic time `due`, for a moment.

        Returns:
          Seconds of a pause, such as SIGSTOP or a frozen container, or 0.
        """
        timeout = min(_WAKE_SECS, max(0.0, due - time.monotonic()))
        if self._wakeup in connection.wait([*sentinels, self._wakeup], timeout):
            self._wakeup.recv(4096)
        return self._notice_pause(timeout)

    def _notice_pause(self, waited_secs: float = 0.0) -> float:
        """Leaves a pause since the last call out of the silence of all children.

        A process that is stopped or frozen together with the supervisor is not hung.

        Args:
          waited_secs: time since then that the supervisor chose to wait.

        Returns:
          Seconds of the pause; 0 if there was none.
        """
        now = time.monotonic()
        late, self._noticed_at = now - self._noticed_at - waited_secs, now
        if late < _PAUSE_SECS:
            return 0.0
        for child in self._children:
            child.excuse(late)
        return late

    def _write_status(self) -> None:
        self._tick(self.statuses())

    # Deaths and restarts.

    def _attend(self, child: child_process.ChildProcess) -> None:
        if child.done or child.lost:
            return
        if child.process is None:
            if time.monotonic() >= child.restart_at:
                self._start(child)
        elif not child.process.is_alive():
            self._reap(child)
        elif child.is_hung():
            self._notice_pause()  # it may have ended just now
            if child.is_hung():
                self._report(child.terminate())
        if child.process is not None:
            child.escalate()

    def _start(self, child: child_process.ChildProcess) -> None:
        try:
            child.start(self._context, self._life)
        except (OSError, EOFError):
            self._restart_or_give_up(child)

    def _reap(self, child: child_process.ChildProcess) -> None:
        """Records a death and acts on it."""
        group = self._groups.get(child)
        if group:
            child = group.cause(child)
        code = child.reap()
        if code == 0 and group:
            child.done = True
            return
        if code == entry_points.BAD_INPUT and self._is_final(child):
            raise errors.BadInput(child.refusal())
        if code == entry_points.RUN_FAILED:
            raise ChildFailed(child.refusal())
        if code == entry_points.NOT_SAVED:
            raise ChildFailed(learner_groups.unsaved(child))
        self._restart_or_give_up(child)

    def _is_final(self, child: child_process.ChildProcess) -> bool:
        """Returns whether bad input of a child ends the run.

        Of a child that has run it was good before, and may be so again: files, or code
        that is being replaced. A receiver decides by itself.
        """
        is_new = not (child.has_run and self._has_learned)
        return is_new or child.seat.role == "receiver"

    @property
    def _has_learned(self) -> bool:
        return self._num_learned() > self._learned_before

    def _num_learned(self) -> int:
        every = [books for each in self._policies for books in each.control.books]
        return sum(books.get("learned") for books in every)

    def _restart_or_give_up(self, child: child_process.ChildProcess) -> None:
        """Reports the policy's verdict on the last death.

        Raises:
          ChildFailed: the budget is spent, and the run needs the child.
        """
        if isinstance(child.verdict, restart_policy.GiveUp):
            self._give_up(child, child.verdict.reason)
            return
        self._stop_at_the_same_error(child)
        self._stop_without_progress(child)
        self._deaths.add(child, child.verdict.secs)
        if child in self._groups:
            self._groups[child].end_with(child)

    def _stop_at_the_same_error(self, child: child_process.ChildProcess) -> None:
        """Raises ChildFailed if all actors die of one error before the first update.

        One death alone may be an accident.
        """
        actors = [self._children[seat.row] for seat in self._shared.topology.actors]
        signatures = {each.signature for each in actors}
        if (
            child.seat.role == "actor"
            and child.error
            and len(signatures) == 1
            and sum(each.deaths for each in actors) > 1
            and not self._has_learned
        ):
            raise ChildFailed(
                "every actor has died of the same error before the first update"
                f" (log: {child.log}):\n{child.traceback()}"
            )

    def _stop_without_progress(self, child: child_process.ChildProcess) -> None:
        """Raises ChildFailed if all actors die again and again and finish nothing."""
        actors = [self._children[seat.row] for seat in self._shared.topology.actors]
        lives = [each.fruitless_lives for each in actors if not each.lost]
        limit = self._health.max_deaths_without_progress
        if child.seat.role == "actor" and min(lives) > 1 and sum(lives) >= limit:
            raise ChildFailed(
                f"{child.title} {child.reason}, and the actors died {sum(lives)} times"
                " in a row without a finished unroll"
                f" (config.health.max_deaths_without_progress={limit})."
                f" Its output ({child.log}):\n{child.output()}"
            )

    def _give_up(self, child: child_process.ChildProcess, spent: str) -> None:
        """Continues without an actor or the evaluator, whose budget is spent.

        Raises:
          ChildFailed: it is neither, or too few actors would be left.
        """
        sentence = f"{child.title} {child.reason}, and {spent}"
        if child.seat.role == "evaluator":
            child.lost = True
            self._report(
                f"{sentence}. See {child.log}. THE RUN CONTINUES WITHOUT EVALUATIONS."
            )
            return
        actors = [self._children[seat.row] for seat in self._shared.topology.actors]
        left = [each for each in actors if not each.lost]
        rest = [each.seat for each in left if each is not child]
        if child not in actors or not self._are_enough(rest):
            raise ChildFailed(
                f"{sentence}. Its output ({child.log}):\n{child.output()}"
            )
        child.lost = True
        self._report(
            f"{sentence}. See {child.log}. THE RUN CONTINUES WITH {len(rest)}"
            f" ACTORS (config.health.min_actors={self._health.min_actors})."
        )

    def _are_enough(self, left: Sequence[topology.Seat]) -> bool:
        """Returns whether these actors are allowed, and fill each learner's share."""
        return len(left) >= max(1, self._health.min_actors) and all(
            sum(each.number in seat.policies and seat.rank == rank for seat in left)
            * each.config.actors.slots
            * each.config.actors.environments
            >= derived.num_fresh(each.config) / each.config.learner.ranks
            for each in self._policies
            for rank in range(each.config.learner.ranks)
        )

    # The end.

    def _end_all(self) -> None:
        """Stops all children; reports and kills those that miss the deadline."""
        self._shared.control.stop()
        for each in self._policies:
            each.rings.wake_all()
        deadline = time.monotonic() + self._shared.config.shutdown.deadline_secs
        left = [child for child in self._children if child.process]
        while left and time.monotonic() < deadline and not self._stop_now:
            sentinels = [child.process.sentinel for child in left]
            deadline += self._wait_for(sentinels, deadline)
            left = [child for child in left if child.process.is_alive()]
        seconds = self._shared.config.shutdown.deadline_secs
        why = "at the second request" if self._stop_now else f"within {seconds:.0f} s"
        for child in left:
            self._report(f"{child.title} did not stop {why} and is killed.")
            child.process.kill()
        for child in self._children:
            if child.process:
                child.process.join()
                if child.seat.role == "learner" and not self._stop_now:
                    self._last_codes[child] = child.process.exitcode
                child.close()
            child.done = True
