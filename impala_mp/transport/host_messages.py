"""Question and reply between the receiver and one actor host.

The receiver asks, and a host only answers. Acknowledgement, parameters, live values and
the order to stop ride on the question. Both are plain dicts, numbers, text and bytes.
"""

from typing import Any, NamedTuple

# States of a host in its replies.
NEW, STARTING, RUNNING, ENDED, FAILED = "new", "starting", "running", "ended", "failed"


class Task(NamedTuple):
    """Task of one seat's hosts, by value: it outlives the learner's host."""

    seat: int
    name: str
    config: str  # JSON
    run: int
    actors: tuple[int, int]  # the first number in the run, and the count
    all_actors: int  # of the run


class Question(NamedTuple):
    """Question of the receiver to a host."""

    incarnation: int  # for which the rest is meant
    next: int  # number of the first slot that has not arrived; the ones before have
    room: int = 0  # slots, at most, of the reply
    poll_secs: float = 0.0  # time that the host may wait for a slot
    begin: bool = False  # a new host takes the incarnation, and starts its actors
    stop: bool = False  # the host ends its actors
    live: tuple[tuple[str, float], ...] = ()  # live hyperparameters
    version: int = 0  # of the parameters that come with it; 0: none do
    names: tuple[tuple[str, ...], ...] = ()  # with `begin`: names of each actor's table
    num_names: int = 0  # that the receiver has, of all actors of the host


Asked = list[tuple[Question, Any]]  # of each policy, with its parameters or None


class Reply(NamedTuple):
    """Answer of a host."""

    incarnation: int  # 0: it has none yet
    state: str
    first: int = 0  # number of the first slot
    slots: tuple[bytes, ...] = ()  # frames of slot_wire
    ages_ns: tuple[int, ...] = ()  # time since each was committed, by the host's clock
    reported: int = 0  # slots that its actors have committed, in this incarnation
    waited_ns: int = 0  # of the poll
    version: int = 0  # of the learner, that the host has published
    names: tuple[tuple[str, ...], ...] = ()  # of each actor, if there are new ones
    facts: tuple[tuple[str, str], ...] = ()  # of host_facts, once it runs
    counters: tuple[tuple[str, int], ...] = ()
    node: str = ""  # name of its machine
    place: str = ""  # id of its node, for the engine
    failure: str = ""  # why it failed
    is_bad_input: bool = False  # the failure is no accident


def to_dict(message: Question | Reply) -> dict[str, Any]:
    """Returns a message as a dict of what differs from the defaults."""
    defaults = type(message)._field_defaults
    return {k: v for k, v in message._asdict().items() if v != defaults.get(k)}
