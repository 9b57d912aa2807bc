"""Learner's side of a population: a member reports its rounds, and copies another.

A copy is exact: parameters, buffers, optimizer and target network, byte by byte. The
member keeps its counters, its replay and its random state. The number of the order is
part of its state, so a learner that resumes obeys an order if, and only if, the state
that it resumes from has not.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from impala_mp.transport import population_block
from impala_mp.workers import game_log, learner

METRICS = ("population/copies", "population/order", "population/score")

_LEAST_GAMES = 20  # since the last copy, for a score


class Member:
    """One policy of a population, in the process that learns it."""

    def __init__(
        self,
        block: population_block.PopulationBlock,
        number: int,
        interval: int,
        the_learner: learner.Learner,
        games: game_log.GameLog,
    ) -> None:
        """`interval` is that of rounds, in the member's agent steps."""
        self._block, self.number, self._interval = block, number, interval
        self._learner, self._games = the_learner, games
        self._obeyed = 0  # number of the last order
        self._copies = 0
        self._round = -1  # the last one that was reported
        self._score = math.nan

    def look(self, finished: bool) -> None:
        """Reports a round if one is complete; called after each update."""
        rounds = self._learner.agent_steps // self._interval
        if rounds > self._round or finished:
            self._round = rounds
            self._score = self._games.recent_return(_LEAST_GAMES)
            self._block.write_report(self.number, rounds, self._score, finished)

    def obey(self, members: Sequence["Member"]) -> bool:
        """Copies another member if there is an order to; returns whether it did.

        It must be called between two updates of any of them.
        """
        order = self._block.order(self.number)
        if order.number <= self._obeyed:
            return False
        (source,) = (each for each in members if each.number == order.source)
        theirs = source._learner.state_tensors
        for name, tensor in self._learner.state_tensors.items():
            tensor.copy_(theirs[name])
        self._games.forget()  # what follows is the score of the copy
        self._obeyed = order.number
        self._copies += 1
        return True

    def saved(self) -> None:
        """Acknowledges the last order, which a checkpoint contains."""
        self._block.acknowledge(self.number, self._obeyed)

    def metrics(self) -> dict[str, float]:
        values = (self._copies, self._obeyed, self._score)
        return dict(zip(METRICS, values, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"obeyed": self._obeyed, "copies": self._copies, "score": self._score}

    def restore(self, state: dict[str, Any] | None, finished: bool) -> None:
        """Continues from the state of a checkpoint, or begins without one; reports."""
        if state:
            self._obeyed, self._copies = state["obeyed"], state["copies"]
            self._score = state["score"]
        self.saved()
        self._round = self._learner.agent_steps // self._interval
        self._block.write_report(self.number, self._round, self._score, finished)


@torch.no_grad()
def obey(members: Sequence[Member | None]) -> list[bool]:
    """Lets each member obey its order; returns which of them have copied another."""
    there = [member for member in members if member]
    return [bool(member) and member.obey(there) for member in members]
