"""Sentences on the ends of learners: at a request to stop, and after it."""

from collections.abc import Mapping, Sequence

from impala_mp.runtime import child_process, entry_points


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
