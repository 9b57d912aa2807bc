"""Sizes that follow from a config: actors, threads, trajectories, tasks."""

import math
from typing import Any

from impala_mp import errors

MAX_ACTORS = 200  # on one machine


def task_names(environment: Any) -> tuple[str, ...]:
    """Returns the ids in `config.environment.id`, which commas separate.

    Raises:
      BadInput: an id is empty or occurs twice.
    """
    ids = tuple(name.strip() for name in environment.id.split(","))
    if "" in ids or len(set(ids)) < len(ids):
        raise errors.BadInput(
            f"environment.id ({environment.id!r}) must be one id, or different"
            " ids separated by commas. Set config.environment.id."
        )
    return ids


def task_suffixes(environment: Any) -> tuple[str, ...]:
    """Returns the suffixes of metrics by task; "" for a single task."""
    ids = task_names(environment)
    if len(ids) == 1:
        return ("",)
    short = tuple(name.replace(":", "/").rpartition("/")[2] for name in ids)
    return tuple(f"/{name}" for name in (short if len(set(short)) == len(ids) else ids))


_NAMED_PLAYERS = 8  # at most, with separate metrics


def suffixes_of_players(players: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the suffixes of metrics by player; () if there are no such metrics.

    Args:
      players: those of the environment's spec.
    """
    if 1 < len(players) <= _NAMED_PLAYERS:
        return tuple(f"/{player.replace('/', '_')}" for player in players)
    return ()


def episode_suffixes(environment: Any, players: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the suffixes of returns, by player or by task."""
    return suffixes_of_players(players) or task_suffixes(environment)


# Algorithms whose network gives a value for each action, and no policy.
BY_VALUE = ("dqn", "iqn")


def learns_action_values(config: Any) -> bool:
    """Returns whether the network gives a value for each action, and no policy."""
    return config.algorithm in BY_VALUE


def has_target_network(config: Any) -> bool:
    """Returns whether the learner holds a target network."""
    return config.algorithm != "vtrace" and config.target.period > 0


def evaluates(config: Any) -> bool:
    """Returns whether a process evaluates during training."""
    return config.evaluation.during_training and config.runtime.mode == "processes"


def evaluation_interval(config: Any) -> int:
    """Returns the agent steps between two evaluations during training."""
    steps: int = config.evaluation.interval_steps
    return steps or max(1, config.total_agent_steps // 20)


def evaluation_environment(config: Any) -> Any:
    """Returns `config.environment` with the arguments of `config.evaluation`."""
    if not config.evaluation.kwargs:
        return config.environment
    settings = config.environment.copy_and_resolve_references()
    with settings.unlocked():
        for name, value in config.evaluation.kwargs.items():
            settings.kwargs[name] = value
    return settings


def num_actors(actors: Any, num_cores: int) -> int:
    """Returns the number in `config.actors`, or one actor a core."""
    count: int = actors.count or min(num_cores, MAX_ACTORS)
    return count


def host_actors(config: Any, num_cores: int) -> int:
    """Returns the number of actors of one actor host."""
    cluster = config.cluster
    count: int = cluster.actors or cluster.cores or num_actors(config.actors, num_cores)
    return count


def all_actors(config: Any, num_cores: int) -> int:
    """Returns the number of actors here and on all actor hosts."""
    hosts: int = config.cluster.hosts
    own = num_actors(config.actors, num_cores)
    return own + hosts * (host_actors(config, num_cores) if hosts else 0)


def server_threads(inference: Any) -> int:
    """Returns the server's threads in `config.inference`; 0 without a server."""
    return inference.threads if inference.mode == "server" else 0


def acting_device(inference: Any) -> str:
    """Returns the device that acts by `config.inference`; actors act on the CPU."""
    return str(inference.device) if inference.mode == "server" else "cpu"


def num_learners(config: Any) -> int:
    """Returns the number of processes that learn: ranks, or those of several policies.

    `learner.processes` must be resolved.
    """
    return int(config.learner.ranks * config.learner.processes)


def learner_threads(config: Any, num_cores: int) -> int:
    """Returns the threads of one learner in the config, or its share of free cores."""
    taken = num_actors(config.actors, num_cores) + server_threads(config.inference)
    left = (num_cores - taken) // num_learners(config)
    threads: int = config.learner.threads or max(1, left)
    return threads


def num_threads(config: Any, num_cores: int) -> int:
    """Returns the threads that act, infer and learn."""
    acting = num_actors(config.actors, num_cores) * config.actors.threads
    learning = learner_threads(config, num_cores) * num_learners(config)
    return int(acting + server_threads(config.inference) + learning)


def of_rank(config: Any) -> Any:
    """Returns the config of one of several ranks: its share of batch and replay."""
    ranks = config.learner.ranks
    if ranks == 1:
        return config
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.batch_size //= ranks
        own.replay.memory_mib /= ranks
    return own


def has_replay(config: Any) -> bool:
    """Returns whether the learner holds a replay."""
    return config.replay.ratio > 0 or config.replay.reuse > 0


def has_league(config: Any) -> bool:
    """Returns whether snapshots of the policy play in its games."""
    return bool(config.league.every)


def num_frozen(config: Any) -> int:
    """Returns the number of snapshots that a league holds; 0 without one."""
    return int(config.league.size) if has_league(config) else 0


def num_replayed(config: Any) -> int:
    """Returns the number of trajectories of a batch that the replay provides."""
    if config.replay.reuse:
        return int(config.batch_size)
    return round(config.replay.ratio * config.batch_size)


def num_predecessors(config: Any) -> int:
    """Returns the number of trajectories of a batch whose predecessor is fetched."""
    return num_replayed(config) if config.replay.burn_in else 0


def num_fresh(config: Any) -> int:
    """Returns the number of trajectories of a batch that the rings provide."""
    fresh: int = config.batch_size - num_replayed(config)
    return fresh


def num_new(config: Any) -> float:
    """Returns the number of new trajectories for each batch, on average.

    With replay.reuse inf it depends on the speed of the learner, and is that of a batch
    here.
    """
    reuse = config.replay.reuse
    if reuse:
        return config.batch_size / (reuse if reuse < math.inf else 1.0)
    return num_fresh(config)


def replay_capacity(config: Any, trajectory_bytes: int) -> int:
    """Returns the number of trajectories that fit into `config.replay.memory_mib`.

    Raises:
      BadInput: fewer than a batch fit, or than the slot of an actor.
    """
    memory_mib = config.replay.memory_mib
    found = int(memory_mib * 2**20) // trajectory_bytes
    for whole, size in (
        ("a batch", config.batch_size),
        ("the slot of an actor", config.actors.environments),
    ):
        if found < size:
            raise errors.BadInput(
                f"replay.memory_mib ({memory_mib}) holds {found} trajectories"
                f" of {trajectory_bytes / 2**10:,.1f} KiB, less than {whole}"
                f" ({size}). Set config.replay.memory_mib to at least"
                f" {size * trajectory_bytes / 2**20 + 0.1:.1f}."
            )
    return found
