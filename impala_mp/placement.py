"""Which process runs on which cores and which GPU, decided once and said aloud."""

import itertools
import os
from typing import NamedTuple

import torch

# Where there are more threads than cores, the learner's come first: an actor that
# waits for a core fills its ring later, a learner that waits makes everybody wait.
ACTOR_NICENESS = 5


class Placement(NamedTuple):
    """Cores by role; an empty tuple leaves the choice to the kernel."""

    learner: tuple[int, ...]
    actors: tuple[tuple[int, ...], ...]
    server: tuple[int, ...] = ()  # of the inference server, where there is one

    def explain(self, learner_threads: int, server_threads: int = 0) -> str:
        """A sentence for a person."""
        count = len(self.actors)
        if self.learner:
            server = (
                f" the inference server {_cores(self.server)},"
                if server_threads
                else ""
            )
            return (
                f"Cores: the learner has {_cores(self.learner)},{server} and"
                f" {count} actors"
                f" {_cores(tuple(c for cores in self.actors for c in cores))}."
            )
        server = f", {server_threads} inference" if server_threads else ""
        return (
            f"Cores: {count} actors{server} and {learner_threads} learner threads share"
            f" {len(os.sched_getaffinity(0))} cores; the learner goes first."
        )


def plan(
    cores: list[int],
    num_actors: int,
    actor_threads: int,
    learner_threads: int,
    server_threads: int = 0,
) -> Placement:
    """Cores of one's own for every thread, if there are enough of them."""
    threads = [learner_threads, server_threads, *[actor_threads] * num_actors]
    if sum(threads) > len(cores):
        return Placement((), ((),) * num_actors)
    ends = itertools.accumulate(threads)
    learner, server, *actors = (
        tuple(cores[end - count : end])
        for count, end in zip(threads, ends, strict=True)
    )
    return Placement(learner, tuple(actors), server)


def take(cores: tuple[int, ...], niceness: int = 0) -> None:
    """Binds this process to `cores`, or makes it the nicer one where it has none."""
    if cores:
        os.sched_setaffinity(0, cores)
    else:
        os.nice(niceness)


def take_device(device: str) -> None:
    """Makes cuda:N this process's GPU: its streams, events and graphs are of that one.

    They would be of the first GPU otherwise, wherever the tensors lie.
    """
    kind, index = torch.device(device).type, torch.device(device).index
    if kind == "cuda" and index is not None:
        torch.cuda.set_device(index)


def _cores(cores: tuple[int, ...]) -> str:
    if len(cores) == 1:
        return f"core {cores[0]}"
    if cores == tuple(range(cores[0], cores[-1] + 1)):
        return f"cores {cores[0]} to {cores[-1]}"
    return f"cores {', '.join(map(str, cores))}"
