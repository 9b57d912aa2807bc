"""Minibatches and micro-batches: equal parts of a batch."""

from typing import Any

from impala_mp import errors
from impala_mp.config import derived


def num_steps(config: Any) -> int:
    """Returns the optimizer steps of an update."""
    steps: int = config.learner.passes * config.learner.minibatches
    return steps


def are_rows(config: Any) -> bool:
    """Returns whether minibatches are of single transitions, not of trajectories.

    Nothing but V-trace may then look from row to row. IMPACT computes it once an
    update; with replay, and in the other algorithms, each step does.
    """
    network = config.network
    is_alone = network.core == "none" and not network.last_action
    return is_alone and config.algorithm == "impact"


def are_equal(config: Any, parts: int) -> bool:
    """Returns whether a batch, and each minibatch, has `parts` equal micro-batches."""
    rows = config.unroll_length if are_rows(config) else 1
    shares = config.learner.minibatches * parts
    return config.batch_size % parts == 0 and config.batch_size * rows % shares == 0


def check(config: Any, whole: str = "batch_size") -> None:
    """Refuses parts that are not equal, or of a batch that is replayed or chosen.

    Args:
      whole: what `config.batch_size` is.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    size, parts = config.batch_size, config.learner.micro_batches
    if parts and size % parts:
        raise errors.BadInput(
            f"learner.micro_batches ({parts}) must divide {whole} ({size}). Set"
            f" config.learner.micro_batches to a divisor of {size}."
        )
    steps = config.learner.minibatches
    if steps > 1 and derived.has_replay(config):
        raise errors.BadInput(
            f"learner.minibatches ({steps}) must be 1 with replay, because they are of"
            " fresh trajectories. Set config.learner.minibatches=1, or"
            " config.replay.ratio and config.replay.reuse to 0."
        )
    if steps > 1 and not size:
        raise errors.BadInput(
            f"learner.minibatches ({steps}) must be equal shares of a batch, and"
            " batch_size is auto. Set config.batch_size to a number."
        )
    if not are_equal(config, parts or 1):
        what, count = "trajectories", size
        if are_rows(config):
            what, count = "transitions", size * config.unroll_length
        each = f", of {parts} micro-batches each," if parts > 1 else ""
        raise errors.BadInput(
            f"learner.minibatches ({steps}){each} must be equal shares of the {count}"
            f" {what} of {whole} ({size}). Set config.learner.minibatches to a divisor"
            f" of {count // (parts or 1)}."
        )
