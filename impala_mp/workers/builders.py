"""Builds an actor or a learner from the shared memory of a run."""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from impala_mp import errors, seeding
from impala_mp.algorithms import cuda, replay
from impala_mp.config import derived, schedules
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.transport import (
    control_block,
    parameter_store,
    ranks,
    shared as shared_lib,
    topology,
)
from impala_mp.workers import (
    accounting,
    actor,
    batcher,
    ended_games,
    game_log,
    intake,
    learner,
    learner_loop,
    nonfinite,
    party,
    rank_loop,
    snapshots,
)


def make_actor(
    seat: topology.Seat, incarnation: int, policies: Sequence[shared_lib.Shared]
) -> actor.Actor:
    """Returns the actor of one seat, its environments started; close it at the end."""
    common, index = policies[0], seat.index
    config, row = common.config, common.row(seat)
    node = common.seeds("actor", index, incarnation)
    with contextlib.ExitStack() as after_failure:
        environment = factory.make(
            config.environment,
            sum(each.config.actors.environments for each in policies),
            task=index,
        )
        after_failure.callback(environment.close)
        the_actor = actor.Actor(
            [_make_party(each, index) for each in policies],
            environment,
            common.control,
            row,
            index,
            incarnation,
            seeding.EnvironmentSeeds(node, environment.num_envs),
            torch.Generator().manual_seed(seeding.torch_seed(node)),
            common.run,
        )
        the_actor.publish_names(common.actor_names[index])
        row.beat(control_block.State.RESETTING)
        the_actor.reset()
        after_failure.pop_all()
    return the_actor


def _make_party(shared: shared_lib.Shared, index: int) -> party.Party:
    config = shared.config
    policy = agent.make(config, shared.environment)
    policy.precision = config.inference.precision
    num_actors = len(shared.topology.actors)
    return party.Party(
        policy,
        shared.rings.ring(index),
        shared.store,
        shared.control,
        config.actors.environments,
        schedules.rungs(config.actors, num_actors)[index],
    )


def make_learner(
    seat: topology.Seat, shared: shared_lib.Shared
) -> learner_loop.LearnerLoop:
    """Returns the learner of one policy, in a process of `seat`, not yet restored."""
    config = shared.config
    _seed_learner(shared, shared.number)
    the_replay = _make_replay(shared, seat, config)
    the_batcher = _make_batcher(seat, shared, config, the_replay)
    the_accounts = accounting.Accounts(*_accounted(seat, shared, the_batcher))
    the_learner = learner.Learner(config, agent.make(config, shared.environment))
    return _make_loop(
        seat, shared, config, the_learner, the_batcher, the_accounts, the_replay
    )


def make_rank(
    seat: topology.Seat, shared: shared_lib.Shared, incarnation: int
) -> rank_loop.Leader | rank_loop.Follower:
    """Returns one of several ranks that learn a policy; it waits for the others."""
    config, row = derived.of_rank(shared.config), shared.row(seat)
    if config.learner.device == "cuda":
        with config.unlocked():
            config.learner.device = f"cuda:{seat.rank}"
        cuda.take_device(config.learner.device)
    group = ranks.Group(
        shared.port,
        f"{shared.run}/{incarnation}",
        seat.rank,
        len(shared.topology.learners),
        row,
        config.learner.device,
    )
    _seed_learner(shared, seat.rank)
    the_replay = _make_replay(shared, seat, config)
    the_batcher = _make_batcher(seat, shared, config, the_replay)
    accounted = _accounted(seat, shared, the_batcher)
    policy = agent.make(config, shared.environment)
    _check_torso(config, policy)
    the_learner = learner.Learner(config, policy, group)
    if seat.rank == 0:
        the_accounts = accounting.SharedAccounts(*accounted)
        loop = _make_loop(
            seat, shared, config, the_learner, the_batcher, the_accounts, the_replay
        )
        names = shared.learner_names
        return rank_loop.Leader(loop, group, the_learner, the_accounts, names)
    crashes = os.path.join(os.path.dirname(shared.checkpoints), "crashes")
    return rank_loop.Follower(
        config,
        group,
        the_learner,
        the_batcher,
        accounting.Accounts(*accounted),
        shared.control,
        row,
        ended_games.EndedGames(
            shared.actor_names,
            shared.learner_names[seat.rank],
            game_log.groups(config, shared.environment.players),
        ),
        nonfinite.Guard(config, the_learner, crashes),
        shared.store,
        the_replay,
    )


def _check_torso(config: Any, policy: agent.Agent) -> None:
    """Refuses a custom torso whose statistics would be those of a rank's share.

    Raises:
      BadInput: it has a method `adapt`.
    """
    torso = config.network.torso
    if ":" in torso and hasattr(policy.network.torso, "adapt"):
        raise errors.BadInput(
            f"network.torso ({torso!r}) adapts to the batches that it sees, and"
            f" learner.ranks ({config.learner.ranks}) see different ones. Set"
            " config.learner.ranks=1, or remove its method adapt."
        )


def _seed_learner(shared: shared_lib.Shared, number: int) -> None:
    """Seeds the policy, or the rank, of this number."""
    node = seeding.sequence(shared.config.seed, "learner", number)
    torch.manual_seed(seeding.torch_seed(node))


def _make_batcher(
    seat: topology.Seat,
    shared: shared_lib.Shared,
    config: Any,
    the_replay: replay.Replay | None,
) -> batcher.Batcher:
    books = shared.control.books[seat.rank]
    return batcher.Batcher(
        [shared.rings.ring(number) for number in _numbers(seat, shared)],
        shared.rings.learner_doorbells[seat.rank],
        shared.batch,
        config.learner.device,
        _oldest_version(config.max_policy_lag, shared.store),
        lambda count: books.add("discarded", count),
        the_replay,
        intake.Intake(config.replay, the_replay)
        if config.replay.reuse and the_replay
        else None,
    )


def _numbers(seat: topology.Seat, shared: shared_lib.Shared) -> tuple[int, ...]:
    """Returns the numbers of the rings that a learner reads."""
    return shared.topology.rings(shared.number, seat.rank)


def _accounted(
    seat: topology.Seat, shared: shared_lib.Shared, the_batcher: batcher.Batcher
) -> tuple[Any, ...]:
    """Returns the arguments of the accounts of one learner."""
    numbers, books = _numbers(seat, shared), shared.control.books[seat.rank]
    slot_size = shared.config.actors.environments
    return shared.rings, numbers, the_batcher, books, slot_size


def _make_loop(
    seat: topology.Seat,
    shared: shared_lib.Shared,
    config: Any,
    the_learner: learner.Learner,
    the_batcher: batcher.Batcher,
    the_accounts: accounting.Accounts,
    the_replay: replay.Replay | None,
) -> learner_loop.LearnerLoop:
    """Returns a loop that publishes, saves and reports."""
    interval = derived.evaluation_interval(config) if derived.evaluates(config) else 0
    return learner_loop.LearnerLoop(
        config,
        shared.live,
        the_learner,
        the_batcher,
        the_accounts,
        len(shared.topology.actors),
        shared.store,
        shared.control,
        shared.row(seat),
        shared.learner_record,
        game_log.GameLog(
            config,
            shared.environment.players,
            os.path.dirname(shared.checkpoints),
            shared.actor_names,
            shared.learner_names[0],
        ),
        snapshots.Writer(the_learner.parameters.flat, shared.snapshots, interval),
        shared.checkpoints,
        shared.learner_memory,
        the_replay,
        shared.policy,
    )


def _make_replay(
    shared: shared_lib.Shared, seat: topology.Seat, config: Any
) -> replay.Replay | None:
    """Returns an empty replay, or None without one."""
    if not derived.has_replay(config):
        return None
    number = shared.number + seat.rank  # several policies have a single rank
    return replay.Replay(
        shared.batch,
        derived.replay_capacity(config, replay.trajectory_bytes(shared.batch)),
        derived.num_replayed(config),
        derived.num_new(config),
        config.replay,
        shared.seeds("replay", number, shared.row(seat).get("incarnation")),
    )


def _oldest_version(
    max_lag: int, store: parameter_store.ParameterStore
) -> Callable[[], int]:
    """Returns a function that gives the oldest version that may be learned."""
    if max_lag < 0:
        return lambda: 0
    return lambda: store.latest - max_lag
