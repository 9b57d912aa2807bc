"""Kinds of faults: how often each is dealt, and where it cannot be."""

import argparse
import random
from collections.abc import Collection, Iterator
from typing import NamedTuple

from faults import host_faults, run as run_lib, trainings

_DECK = {  # faults, and how often each is dealt among 41
    **{"kill_actor": 5, "kill_learner": 3, "kill_evaluator": 2},
    **{"pause_actor": 3, "pause_learner": 2, "pause_evaluator": 1},
    **{"freeze_actor": 2, "freeze_learner": 1, "freeze_evaluator": 1},
    **{"kill_inference": 3, "pause_inference": 2, "freeze_inference": 1},  # if there
    **{"environment_raises": 3, "environment_hangs": 1, "environment_leaks": 2},
    **{"environment_nan_reward": 2, "environment_nan_observation": 2},
    **{"stop_run": 1, "kill_supervisor": 1, "kill_fork_server": 1, "fill_disk": 2},
}
_GAP_SECS = (1.5, 2.5)  # between two faults


class Fault(NamedTuple):
    """One entry of the plan."""

    kind: str
    choice: int  # of a process
    share: float  # of a duration, in [0, 1)
    gap_secs: float  # to the next fault


def plan(seed: int, deck: dict[str, int], kinds: Collection[str]) -> Iterator[Fault]:
    """Faults for ever: each deck is shuffled, and dealt to its end.

    Kinds that are not among `kinds` are passed over. The others keep their order.
    """
    rng = random.Random(seed)
    cards = [kind for kind, count in deck.items() for _ in range(count)]
    while True:
        rng.shuffle(cards)
        for kind in cards:
            gap = rng.uniform(*_GAP_SECS)
            fault = Fault(kind, rng.randrange(1 << 16), rng.random(), gap)
            if kind in kinds:
                yield fault


def served(options: argparse.Namespace) -> bool:
    may_be = trainings.of(options.env).may_be_served and not options.hosts
    return options.seed % 2 == 1 and may_be


def of(options: argparse.Namespace) -> tuple[dict[str, int], dict[str, str]]:
    """The deck for this environment, and why some kinds are not in it."""
    env, skipped = options.env, dict[str, str]()
    if not served(options):
        why = "each actor infers for itself: an odd --seed has an inference server"
        if options.hosts or not trainings.of(env).may_be_served:
            where = "with hosts" if options.hosts else f"in {env}"
            why = f"each actor infers for itself {where}"
        skipped |= {kind: why for kind in _DECK if kind.endswith("_inference")}
    if not trainings.is_wrapped(env):
        why = f"{env} is not wrapped"
        skipped |= {kind: why for kind in _DECK if kind.startswith("environment_")}
    skipped |= dict.fromkeys(trainings.of(env).without, f"{env} cannot have it")
    deck = {**_DECK, **(host_faults.DECK if options.hosts else {})}
    return {k: n for k, n in deck.items() if k not in skipped}, skipped


def dealt(
    options: argparse.Namespace, run: run_lib.Run
) -> tuple[set[str], dict[str, str]]:
    """Kinds that are to be dealt on this machine, and why others are not."""
    deck, skipped = of(options)
    kinds = {*(options.only or deck)}
    if run.disk.problem:
        kinds.discard("fill_disk")
        skipped["fill_disk"] = run.disk.problem
        if "fill_disk" in options.only:
            raise run_lib.RunFailedError(f"no fill_disk: {run.disk.problem}")
    return kinds, skipped
