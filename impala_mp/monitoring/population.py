"""Supervisor's side of a population: which member copies which, and when.

A round is complete when each member that still learns has reported it. It is written to
population.jsonl before any order is given. A resumed run removes the rounds that its
members have yet to complete again, and repeats orders that no checkpoint contains.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from impala_mp.config import population
from impala_mp.monitoring import formats, live_control
from impala_mp.storage import files
from impala_mp.transport import population_block, shared as shared_lib

NAME = "population.jsonl"


def read(path: str) -> list[dict[str, Any]]:
    """Returns the rounds of the run in `path`, oldest first; [] without any."""
    return [
        each
        for each in files.json_objects(os.path.join(path, NAME))
        if isinstance(each.get("round"), int) and isinstance(each.get("orders"), list)
    ]


class Population:
    """Decides the rounds of one run, and gives the orders."""

    def __init__(
        self,
        policies: Sequence[shared_lib.Shared],
        block: population_block.PopulationBlock,
        live: live_control.LiveControl,
        path: str,
        report: Callable[[str], None],
    ) -> None:
        """Sets the first live values of members that have none yet."""
        self._config, self._path = policies[0].whole, path
        self._names = [each.policy for each in policies]
        self._controls = [each.control for each in policies]
        self._block, self._live, self._report = block, live, report
        self._round = -1  # the last one that was decided; -1: not known yet
        for number, values in enumerate(population.starts(self._config)):
            there = self._controls[number].overrides()
            missing = {k: v for k, v in values.items() if k not in there}
            self._live.set_for_population(self._names[number], missing)

    def look(self) -> None:
        """Decides a round if one is complete.

        Raises:
          OSError: it could not be written. No order is given; the next look retries.
        """
        reports = self._block.reports()
        if not all(each.restored for each in reports):
            return
        complete = min(each.round for each in reports)
        if self._round < 0:
            self._resume(complete, reports)
        if complete > self._round and not all(each.finished for each in reports):
            self._decide(complete, reports)

    def _resume(
        self, complete: int, reports: Sequence[population_block.Report]
    ) -> None:
        """Continues after the rounds that the restored members have completed."""
        written = read(self._path)
        obeyed = {
            name: each.obeyed for name, each in zip(self._names, reports, strict=True)
        }
        kept = [
            line
            for line in written
            if line["round"] <= complete
            or any(obeyed[x["policy"]] >= line["round"] for x in line["orders"])
        ]
        if len(kept) < len(written):
            text = "".join(f"{json.dumps(line)}\n" for line in kept)
            files.write_atomically(os.path.join(self._path, NAME), text)
        last = {x["policy"]: (line, x) for line in kept for x in line["orders"]}
        for name, (line, order) in last.items():
            if line["round"] > obeyed[name]:
                self._give(line["round"], order)
        self._round = max((line["round"] for line in kept), default=0)

    def _decide(self, number: int, reports: Sequence[population_block.Report]) -> None:
        scores = [each.score for each in reports]
        may_copy = [
            not each.finished
            and each.obeyed < number
            and each.obeyed >= self._block.order(member).number
            for member, each in enumerate(reports)
        ]
        pairs = population.choose(self._config, number, scores, may_copy)
        orders = [
            {
                "policy": self._names[member],
                "source": self._names[source],
                "live": population.perturbed(
                    self._config, number, member, self._values(source)
                ),
            }
            for member, source in pairs.items()
        ]
        line = {
            "time": time.time(),
            "round": number,
            "scores": {
                name: None if math.isnan(score) else score
                for name, score in zip(self._names, scores, strict=True)
            },
            "live": {name: self._values(k) for k, name in enumerate(self._names)},
            "orders": orders,
        }
        files.append(os.path.join(self._path, NAME), json.dumps(line) + "\n")
        self._round = number
        for order in orders:
            self._report(_sentence(number, order, line["scores"]))
            self._give(number, order)

    def _values(self, member: int) -> dict[str, float]:
        """Returns the live values of a member that the population sets."""
        control = self._controls[member]
        return {name: control.get(name) for name in population.ranges(self._config)}

    def _give(self, number: int, order: dict[str, Any]) -> None:
        """Sets the live values of the copy, then orders it."""
        self._live.set_for_population(order["policy"], order["live"])
        member, source = map(self._names.index, (order["policy"], order["source"]))
        self._block.give_order(member, number, source)


def _sentence(number: int, order: dict[str, Any], scores: dict[str, Any]) -> str:
    one, other = order["policy"], order["source"]
    return (
        f"Round {number}: {one} (mean return {formats.number(scores[one])}) copies"
        f" {other} ({formats.number(scores[other])})."
    )


def rows(path: str, record: dict[str, float]) -> list[tuple[str, str]]:
    """Returns a row of text for each member, from the newest record of a run.

    It has the mean return, the live values of the newest round, and the last copy.
    """
    rounds = read(path)
    if not rounds:
        return []
    live = dict(rounds[-1].get("live", {}))
    copies: dict[str, str] = {}
    for line in rounds:
        for order in line["orders"]:
            copies[order["policy"]] = f"copied {order['source']}, round {line['round']}"
    live |= {x["policy"]: x["live"] for x in rounds[-1]["orders"]}
    found = []
    for name, values in live.items():
        mean = record.get(f"episode/return_mean/{name}")
        texts = [formats.number(mean) if mean is not None else "no game yet"]
        texts += [
            f"{key} {record.get(f'live/{key}/{name}', value):.3g}"
            for key, value in values.items()
        ]
        texts.append(copies.get(name, ""))
        found.append((name, "  ".join(filter(None, texts))))
    return found
