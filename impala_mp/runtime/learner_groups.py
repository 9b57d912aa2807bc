"""Groups of learners: ranks start together, and end with the first that dies.

The others cannot go on: each update needs all. A rank whose peers are lost ends by
itself where the exchange notices, and is killed here where it does not. The dead rank's
death is the only one in the budget of restarts, and all resume from the newest state.

Processes that learn different policies are different groups.
"""

import time
from collections.abc import Mapping, Sequence

from impala_mp.runtime import child_process, entry_points, restart_policy
from impala_mp.transport import control_block, ranks, shared as shared_lib

Policies = Sequence[shared_lib.Shared]

_CAUSE_SECS = 0.3  # in which the death that others noticed is found
_LOOK_SECS = 0.01


def meet(policies: Policies) -> tuple[ranks.Rendezvous | None, Policies]:
    """Returns the place where several ranks meet, and the policies that know it."""
    if len(policies[0].control.books) == 1:
        return None, policies
    place = ranks.Rendezvous()
    return place, [each._replace(port=place.port) for each in policies]


def of_learners(
    children: Sequence[child_process.ChildProcess],
) -> "dict[child_process.ChildProcess, LearnerGroup]":
    """Returns the group of each learner: all that learn the same policies.

    There are none on an actor host.
    """
    groups: dict[tuple[int, ...], list[child_process.ChildProcess]] = {}
    for child in children:
        if child.seat.role == "learner":
            groups.setdefault(child.seat.policies, []).append(child)
    made = map(LearnerGroup, groups.values())
    return {child: group for group in made for child in group.children}


class LearnerGroup:
    """Seats that learn the same policies, one or several ranks.

    Each group has its own budget of restarts.
    """

    def __init__(self, children: Sequence[child_process.ChildProcess]) -> None:
        self.children = children
        for child in children:
            child.policy = children[0].policy  # one budget
            child.may_wait = self._somebody_works

    def _somebody_works(self) -> bool:
        """Returns whether a rank may still come that the others wait for."""
        waiting = control_block.State.WAITING_FOR_RANKS
        return any(child.row.state != waiting for child in self.children)

    def cause(self, child: child_process.ChildProcess) -> child_process.ChildProcess:
        """Returns the rank whose death `child`, which is dead, died of."""
        end = time.monotonic() + _CAUSE_SECS
        while child.process.exitcode == entry_points.PEERS_LOST:
            for other in self.children:
                code = other.process.exitcode if other.process else None
                if code not in (None, entry_points.PEERS_LOST):
                    return other
            if time.monotonic() >= end:
                break
            time.sleep(_LOOK_SECS)
        return child

    def end_with(self, child: child_process.ChildProcess) -> None:
        """Ends all other ranks after the death of one, and restarts them with it."""
        assert isinstance(child.verdict, restart_policy.Wait)
        for other in self.children:
            if other is not child:
                other.end_with(child)


# Ends of learners, in words.


def at_stop(learners: Sequence[child_process.ChildProcess]) -> str:
    """Returns what a request to stop does; `learners` are those of rank 0."""
    gone = [
        f"{each.title} {each.reason} before. Its newest checkpoint stays the newest."
        for each in learners
        if not (each.process or each.done)
    ]
    saving = "the learner writes a checkpoint"
    if len(learners) > 1:
        saving = "the learners write their checkpoints"
    first = f": {saving}" if len(gone) < len(learners) else ""
    return " ".join([f"Stopping on request{first}.", *gone])


def unsaved(learner: child_process.ChildProcess) -> str:
    """Returns a sentence; on a full disk the log has no line of it."""
    return (
        f"the last checkpoint could not be written (see {learner.log}). What was"
        " learned since the newest one is lost. When there is room for it, the same"
        " command resumes from there."
    )


def failure(codes: Mapping[child_process.ChildProcess, int]) -> str:
    """Returns why a learner failed when it was asked to stop; "" if none did.

    `codes` are the exit codes of the learners.
    """
    for learner, code in codes.items():
        if code == entry_points.NOT_SAVED:
            return unsaved(learner)
    for learner, code in codes.items():
        if code:
            return (
                f"the {learner.name} {child_process.cause(code)} when it was asked to"
                f" stop. Its output ({learner.log}):\n{learner.output()}"
            )
    return ""
