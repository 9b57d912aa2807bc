"""Whole training in one process: deterministic, and fit for a debugger.

Actors, rings, batcher and learner are those of the multi-process mode; they take turns.
On a CPU the same seed gives the same losses. A run that is stopped and resumed equals
one that never stopped, bit for bit.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from impala_mp import errors, seeding
from impala_mp.algorithms import cuda
from impala_mp.monitoring import profiling
from impala_mp.runtime import signals
from impala_mp.transport import control_block, shared as shared_lib
from impala_mp.workers import actor, builders, learner_loop, learner_process

_LAST_TURNS = 100  # at most, after the request to stop
_TICK_SECS = 5.0  # at most, for any interval of records


class _StopRequest:
    """Signals, read between updates: an unroll is never cut short.

    SIGUSR1 requests a checkpoint.
    """

    def __init__(self, control: control_block.ControlBlock) -> None:
        self._control = control
        self.came = False

    def __enter__(self) -> "_StopRequest":
        self._old: dict[int, Any] = {
            number: signal.signal(number, self._on) for number in signals.ending()
        }
        self._old[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_save)
        return self

    def _on_save(self, number: int, frame: Any) -> None:
        self._control.ask_for_save()

    def _on(self, number: int, frame: Any) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


class _Actors:
    """All actors of the run, which take turns."""

    def __init__(
        self, policies: Sequence[shared_lib.Shared], report: Callable[[str], None]
    ) -> None:
        self._policies, self._report = policies, report
        self._next = 0
        self._actors: list[actor.Actor] = []
        self._can_save = True

    def start(self, incarnation: int) -> None:
        for seat in self._policies[0].topology.actors:
            self._actors.append(builders.make_actor(seat, incarnation, self._policies))
            row = self._policies[0].row(seat)
            row.set("incarnation", incarnation)
            row.beat(control_block.State.RUNNING)

    def unroll(self) -> None:
        """Fills one slot of the actor whose turn it is.

        It keeps its turn after bad data, and passes it if a ring is full.
        """
        turn = self._actors[self._next]
        if turn.has_space():
            turn.fetch()
            if not turn.guarded_unroll():
                return
        self._next = (self._next + 1) % len(self._actors)

    def close(self) -> None:
        for each in self._actors:
            each.close()

    def state_dict(self) -> dict[str, Any]:
        if not self._can_save:
            return {}
        try:
            states = [each.state_dict() for each in self._actors]
        except errors.BadInput as error:
            self._can_save = False
            self._report(f"{error} A resumed run starts new episodes.")
            return {}
        return {
            "actors": states,
            "next_actor": self._next,
            "global_random": seeding.global_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next = state["next_actor"]
        for each, saved in zip(self._actors, state["actors"], strict=True):
            each.load_state_dict(saved)
        if "global_random" in state:  # missing in older checkpoints
            seeding.set_global_state(state["global_random"])


def run(
    policies: Sequence[shared_lib.Shared],
    report: Callable[[str], None],
    tick: Callable[[str], None],
    each_turn: Callable[[], None] = lambda: None,
) -> bool:
    """Trains; returns True when the training is finished, False when it was stopped.

    Args:
      report: called with sentences for the user.
      tick: called with the state of the run (running, or at the end finished, stopped
        or failed), with every record and every few seconds.
      each_turn: called after updates.

    Raises:
      NotSaved: the last checkpoint could not be written.
    """
    shared = policies[0]
    cuda.take_device(shared.config.learner.device)
    torch.set_num_threads(shared.learner_threads)
    seeding.seed_globals(shared.seeds("main"))
    loops = [
        builders.make_learner(shared.topology.learner(), each) for each in policies
    ]
    state = learner_process.restore(loops, report)
    with contextlib.closing(_Actors(policies, report)) as actors:
        # Without a saved environment, the seeds of a new incarnation: the episodes of
        # the run before are not repeated.
        incarnation = state["learner"]["updates"] if state else 0
        seeding.seed_globals(shared.seeds("actor", 0, incarnation), with_torch=False)
        actors.start(incarnation)
        if "actors" in state:
            actors.load_state_dict(state)
        del state  # it keeps the checkpoint's file open, which may be removed
        end = "failed"
        try:
            each_turn()  # with the restored state
            _learn(policies, loops, actors, tick, each_turn)
            shared.control.stop()
            learner_process.conclude(loops, actors.state_dict())
            finished = all(loop.finished for loop in loops)
            end = "finished" if finished else "stopped"
        finally:
            tick(end)
    return finished


def _are_empty(policies: Sequence[shared_lib.Shared]) -> bool:
    """Returns whether no trajectory waits in any ring."""
    return all((x.rings.heads() == x.rings.tails()).all() for x in policies)


def _learn(
    policies: Sequence[shared_lib.Shared],
    loops: Sequence[learner_loop.LearnerLoop],
    actors: _Actors,
    tick: Callable[[str], None],
    each_turn: Callable[[], None],
) -> None:
    """Learns until the run is finished or a signal comes."""
    shared = policies[0]
    never_waits = any(each.config.replay.reuse == math.inf for each in policies)
    profile = profiling.of_run(shared.folder, "lockstep", shared.profile_updates)
    ticked = -math.inf  # never; the clock of a machine just booted is near 0
    left = _LAST_TURNS
    with _StopRequest(shared.control) as stop:
        # What is in the rings at the end is lost, and a resumed run is another one.
        while (going := learner_process.unfinished(loops)) and not (
            stop.came and (not left or _are_empty(policies))
        ):
            left -= stop.came
            if never_waits:
                actors.unroll()
            while not any([loop.ready() for loop in going]):
                actors.unroll()
                learner_process.discard_for(loops, going)
            due = any(loop.record_is_due() for loop in going)
            learner_process.take_turns(going)
            profile.turn()
            each_turn()
            learner_process.obey(loops)
            if any([loop.save_is_due() for loop in loops]):
                state = actors.state_dict()
                for loop in loops:
                    loop.save(state if loop is loops[0] else None)
            if due or time.monotonic() - ticked >= _TICK_SECS:
                ticked = time.monotonic()
                tick("running")
    profile.close()
