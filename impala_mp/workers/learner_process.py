"""One process that learns: the loops of its policies, which take turns."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from impala_mp.transport import control_block, doorbell
from impala_mp.workers import learner_loop, member

Loops = Sequence[learner_loop.LearnerLoop]

_WAIT_SECS = 0.2  # longest sleep between two looks at the control block


def restore(loops: Loops, report: Callable[[str], None]) -> dict[str, Any]:
    """Restores each loop; returns the state of the first, as in a checkpoint.

    They count their checkpoints alike, also if a process was killed between two.
    """
    state, *_ = [loop.restore(report) for loop in loops]
    most = max(loop.checkpoints.num_saved for loop in loops)
    for loop in loops:
        loop.checkpoints.num_saved = most
    return state


def run(
    loops: Loops,
    deadline_secs: float,
    each_turn: Callable[[], None] = lambda: None,
    others: Sequence[control_block.Counters] = (),
) -> None:
    """Learns the policies of one process in turn, until all of the run are finished.

    All of its policies are saved at the same moment.

    Args:
      deadline_secs: from the request to stop; half of it is for what is in the rings.
      each_turn: called after updates.
      others: books of the policies that other processes learn.

    Raises:
      NotSaved: a last checkpoint could not be written.
    """
    control, row = loops[0].control, loops[0].row
    has_tried = False  # to announce the end
    while not control.stopping and not _is_over(loops, others):
        going = unfinished(loops)
        row.beat(control_block.State.WAITING_FOR_DATA)
        if not any([loop.ready() for loop in going]):
            start = time.perf_counter()
            doorbell.wait_for_any([loop.bell for loop in loops], _WAIT_SECS)
            for loop in going:
                loop.updates.waited(time.perf_counter() - start)
        if take_turns(going):
            each_turn()
        obey(loops)
        discard_for(loops, going)
        is_due = any([loop.save_is_due() for loop in loops])
        if unfinished(loops):
            if is_due:
                for loop in loops:
                    loop.save()
        elif others and (is_due or not has_tried):
            has_tried = True
            with contextlib.suppress(learner_loop.NotSaved):  # tried again when due
                _announce(loops)
    row.beat(control_block.State.STOPPING)
    end = time.monotonic() + deadline_secs / 2.0
    for loop in loops:
        loop.learn_what_is_left(end)
    _announce(loops)


def _is_over(loops: Loops, others: Sequence[control_block.Counters]) -> bool:
    """Returns whether all policies are finished. Saves of the others have been tried.

    Until then the rings of the own policies must be emptied: actors serve all policies.
    """
    return not unfinished(loops) and all(books.get("is_over") for books in others)


def _announce(loops: Loops) -> None:
    """Saves all policies, and announces it if they are finished.

    A process that is killed later resumes from what is saved before it is announced, so
    that no policy which was finished for other processes learns again.

    Raises:
      NotSaved: one could not be written. The others need not wait for that, if all are
        finished.
    """
    try:
        conclude(loops)
    except learner_loop.NotSaved:
        _set_over(loops, -1)
        raise
    _set_over(loops, 1)


def _set_over(loops: Loops, word: int) -> None:
    """Announces `word` if the policies are finished."""
    if not unfinished(loops):
        for loop in loops:
            loop.control.books[0].set("is_over", word)


def unfinished(loops: Loops) -> Loops:
    """Returns the loops that have more to learn."""
    return [loop for loop in loops if not loop.finished]


def take_turns(going: Loops) -> bool:
    """Lets each loop make an update; returns whether one had a batch."""
    return any([_turn(loop, going) for loop in going])


def _turn(loop: learner_loop.LearnerLoop, going: Loops) -> bool:
    start = time.perf_counter()
    updated = loop.turn()
    for other in going:
        if other is not loop:
            other.updates.was_elsewhere(time.perf_counter() - start)
    return updated


def obey(loops: Loops) -> None:
    """Lets members of a population copy others, if there are orders to.

    Each is saved then, and all others with it.
    """
    for loop, copied in zip(
        loops, member.obey([each.member for each in loops]), strict=True
    ):
        if copied:
            loop.publish()
            loop.checkpoints.require()


def discard_for(loops: Loops, going: Loops) -> None:
    """Empties the rings of finished policies, for which the actors would wait."""
    for loop in loops:
        if loop not in going:
            loop.discard()


def conclude(
    loops: Sequence[learner_loop.LearnerLoop], extra: dict[str, Any] | None = None
) -> None:
    """Writes the last checkpoint and record of each policy; `extra` in the first.

    Raises:
      NotSaved: one could not be written.
    """
    failed = None
    for loop in loops:
        try:
            loop.conclude(extra if loop is loops[0] else None)
        except learner_loop.NotSaved as error:
            failed = error
    if failed:
        raise failed
