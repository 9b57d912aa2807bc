"""What a batch is made of, fresh and replayed, and which settings are unsound."""

from typing import Any

from impala_mp import errors

EVICTIONS = ("fifo", "priority")


def num_replayed(config: Any) -> int:
    """Trajectories of a batch that come from the replay."""
    return round(config.replay.ratio * config.batch_size)


def num_fresh(config: Any) -> int:
    """Trajectories of a batch that come from the rings."""
    fresh: int = config.batch_size - num_replayed(config)
    return fresh


def check(config: Any) -> None:
    """Refuses what is unsound.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    settings = config.replay
    _require(
        0.0 <= settings.ratio < 1.0,
        f"replay.ratio ({settings.ratio!r}) must be at least 0 and below 1, for a"
        " batch needs fresh trajectories: set config.replay.ratio.",
    )
    _require(
        settings.eviction in EVICTIONS,
        f"replay.eviction ({settings.eviction!r}) must be one of"
        f" {', '.join(EVICTIONS)}: set config.replay.eviction.",
    )
    _require(
        0 <= settings.burn_in < config.unroll_length,
        f"replay.burn_in ({settings.burn_in}) must be at least 0 and below"
        f" unroll_length ({config.unroll_length}): set config.replay.burn_in.",
    )
    if settings.ratio:
        _check_shares(config)
        _require(
            config.network.core == "none" or settings.burn_in >= 1,
            f"network.core={config.network.core} with replay.burn_in"
            f" ({settings.burn_in}) would learn from recurrent states that older"
            " parameters left: set config.replay.burn_in to at least 1 (say, a quarter"
            f" of unroll_length, {config.unroll_length}).",
        )


def check_batch(config: Any, num_actors: int) -> None:
    """Refuses a batch that the actors' slots cannot fill, or that cannot be cut.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    size, envs = config.batch_size, config.actors.environments
    parts = config.learner.micro_batches
    _require(
        not parts or size % parts == 0,
        f"learner.micro_batches ({parts}) must divide batch_size ({size}): set"
        f" config.learner.micro_batches to a divisor of {size}.",
    )
    if not envs:
        return  # to be chosen, and checked then
    fresh = num_fresh(config)
    _require(
        fresh % envs == 0,
        f"batch_size ({size}) must be a multiple of actors.environments ({envs}): set"
        f" config.batch_size to {-(-size // envs) * envs}.",
    )
    count, slots = num_actors, config.actors.slots
    _require(
        count * slots * envs >= fresh,
        f"batch_size ({size}) needs {fresh // envs} slots, but {count} actors with"
        f" {slots} slots each have {count * slots}, and learner and actors would wait"
        f" for each other for ever: set config.actors.slots to"
        f" {-(-fresh // (envs * count))}.",
    )
    _require(
        count <= 200,
        f"actors.count ({count}) must be at most 200 on one machine: raise"
        " config.actors.environments instead.",
    )


def _check_shares(config: Any) -> None:
    size, ratio = config.batch_size, config.replay.ratio
    envs = config.actors.environments or 1  # 0: to be chosen so that it divides
    if num_replayed(config) and num_fresh(config) and not num_fresh(config) % envs:
        return
    ratios = [(size - fresh) / size for fresh in range(envs, size, envs)]
    cure = f"config.batch_size to at least {2 * envs}"
    if ratios:
        nearest = min(ratios, key=lambda other: abs(other - ratio))
        cure = f"config.replay.ratio to {nearest:.6g}"
    raise errors.BadInput(
        f"replay.ratio ({ratio}) makes {num_fresh(config)} fresh and"
        f" {num_replayed(config)} replayed trajectories of batch_size ({size}); the"
        f" fresh ones must be a multiple of actors.environments ({envs}), and of both"
        f" there must be some: set {cure}."
    )


def capacity(config: Any, trajectory_bytes: int) -> int:
    """Trajectories that fit into `config.replay.memory_mib`.

    Raises:
      BadInput: they are less than a batch.
    """
    found = int(config.replay.memory_mib * 2**20) // trajectory_bytes
    least = config.batch_size * trajectory_bytes / 2**20
    _require(
        found >= config.batch_size,
        f"replay.memory_mib ({config.replay.memory_mib}) holds {found} trajectories of"
        f" {trajectory_bytes / 2**10:,.1f} KiB, less than a batch"
        f" ({config.batch_size}): set config.replay.memory_mib to at least"
        f" {least + 0.1:.1f}.",
    )
    return found


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise errors.BadInput(sentence)
