"""Checks of a run whose learner has several ranks.

Each rank has a share of the batch, and a block of the actors that fills it.
"""

from collections.abc import Callable
from typing import Any

from impala_mp import errors
from impala_mp.config import derived, fields, minibatches

# What several ranks cannot do: whether a config does it, the words, and the cure.
_REFUSED: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (
        lambda c: c.runtime.mode == "lockstep",
        "runtime.mode=lockstep has one process",
        "config.learner.micro_batches to the number of ranks: the update is the same",
    ),
    (
        lambda c: c.replay.reuse > 0,
        "replay.reuse counts the trajectories of one replay, and each rank has its own",
        "config.replay.reuse=0",
    ),
    (
        lambda c: c.replay.save,
        "replay.save saves the replay of one process, and each rank has its own",
        "config.replay.save=False",
    ),
    (
        derived.has_league,
        "league.every counts the games of one process, and each rank has its own",
        "config.league.every=0",
    ),
    (
        lambda c: c.actors.policy_delay > 0,
        "actors.policy_delay is known to the rank alone that publishes",
        "config.actors.policy_delay=0",
    ),
    (
        lambda c: c.learner.device.startswith("cuda:"),
        "learner.device names one GPU, and rank r takes cuda:r",
        "config.learner.device=cuda",
    ),
)
_NUMBERS = (
    "batch_size",
    "actors.count",
    "actors.environments",
    "learner.micro_batches",
)


def check(config: Any) -> None:
    """Refuses what several ranks cannot do, and a batch without equal shares.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    ranks = config.learner.ranks
    for does, words, cure in _REFUSED:
        if does(config):
            raise errors.BadInput(
                f"{words}, so it does not go with learner.ranks ({ranks}). Set"
                f" {cure}, or config.learner.ranks=1."
            )
    for name in _NUMBERS:
        if not fields.get(config, name):
            raise errors.BadInput(
                f"{name}=auto is chosen for a learner of one process, and learner.ranks"
                f" is {ranks}. Set config.{name} to a number."
            )
    _check_shares(config, ranks)


def _check_shares(config: Any, ranks: int) -> None:
    size, envs, count = (
        config.batch_size,
        config.actors.environments,
        config.actors.count,
    )
    if count % ranks:
        raise errors.BadInput(
            f"actors.count ({count}) must be a multiple of learner.ranks ({ranks}),"
            " which have a block of actors each. Set config.actors.count to"
            f" {-(-count // ranks) * ranks}."
        )
    own = derived.of_rank(config) if size % ranks == 0 else config
    replayed = derived.num_replayed(config)
    if (
        size % ranks
        or derived.num_replayed(own) * ranks != replayed
        or derived.num_fresh(own) % envs
    ):
        step = ranks * envs
        what = f"a share of batch_size ({size}) for each of learner.ranks ({ranks})"
        if replayed:
            raise errors.BadInput(
                f"{what} must have fresh trajectories in a multiple of"
                f" actors.environments ({envs}), and as many replayed ones as the"
                f" others: replay.ratio ({config.replay.ratio}) makes {replayed}"
                f" replayed and {size - replayed} fresh of the batch. Set"
                f" config.batch_size to {2 * step}, and config.replay.ratio to 0.5."
            )
        raise errors.BadInput(
            f"{what} must be a multiple of actors.environments ({envs}). Set"
            f" config.batch_size to {-(-size // step) * step}."
        )
    minibatches.check(own, "the share of each rank")


def check_policies(config: Any, count: int) -> None:
    """Refuses several ranks where several policies learn.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    ranks = config.learner.ranks
    if ranks > 1 and count > 1:
        raise errors.BadInput(
            f"learner.ranks ({ranks}) share the batches of one policy, and {count} play"
            " here. Set config.learner.ranks=1."
        )
