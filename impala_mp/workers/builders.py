"""Builds an actor or a learner from the shared memory of a run."""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from impala_mp import errors, seeding
from impala_mp.algorithms import cuda, replay
from impala_mp.config import derived, schedules
from impala_mp.environments import league_games, vector
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
    guests,
    intake,
    league,
    learner,
    learner_loop,
    member,
    nonfinite,
    party,
    rank_loop,
    snapshots,
)


def make_actor(
    seat: topology.Seat, incarnation: int, policies: Sequence[shared_lib.Shared]
) -> actor.Actor:
    """Returns the actor of one seat, its environments started; close it at the end."""
    own = [policies[number] for number in seat.policies]
    common, config = own[0], own[0].config
    ring = common.topology.actors_of(common.number).index(seat)
    index = common.first_actor + ring  # among the policy's actors in the run
    row, incarnation = common.row(seat), common.actor_incarnation(incarnation)
    node = common.seeds("actor", common.first_actor + seat.index, incarnation)
    with contextlib.ExitStack() as after_failure:
        environment = league_games.make(
            config,
            sum(each.config.actors.environments for each in own),
            task=index,
        )
        after_failure.callback(environment.close)
        generator = torch.Generator().manual_seed(seeding.torch_seed(node))
        the_actor = actor.Actor(
            [_make_party(each, ring, index) for each in own],
            environment,
            common.control,
            row,
            index,
            incarnation,
            seeding.EnvironmentSeeds(node, environment.num_envs),
            generator,
            common.run,
            _make_guests(common, index, environment, generator),
        )
        the_actor.publish_names(common.actor_names[index])
        row.beat(control_block.State.RESETTING)
        the_actor.reset()
        after_failure.pop_all()
    return the_actor


def _make_party(shared: shared_lib.Shared, ring: int, actor: int) -> party.Party:
    """Returns a policy's share of an actor with a ring here, a number in the run."""
    return party.Party(
        _acting_agent(shared),
        shared.rings.ring(ring),
        shared.store,
        shared.control,
        shared.config.actors.environments,
        _rungs(shared, actor),
    )


def _make_guests(
    shared: shared_lib.Shared,
    index: int,
    environment: vector.VectorEnvironment,
    generator: torch.Generator,
) -> guests.Guests | None:
    """Returns the guests of a league, or None without one."""
    if not isinstance(environment, league_games.LeagueEnvironment):
        return None
    return guests.Guests(
        (_acting_agent(shared), _acting_agent(shared)),
        shared.league,
        environment,
        shared.control,
        _rungs(shared, index),
        shared.config.unroll_length,
        generator,
    )


def _acting_agent(shared: shared_lib.Shared) -> agent.Agent:
    policy = agent.make(shared.config, shared.environment)
    policy.precision = shared.config.inference.precision
    return policy


def _rungs(shared: shared_lib.Shared, index: int) -> list[float]:
    """Returns the places of an actor's columns on the ladder."""
    return schedules.rungs(shared.config.actors, shared.num_actors)[index]


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
    on_a_gpu = config.learner.device != "cpu"
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
        # The replay takes slots on the host.
        on_a_gpu and not the_replay and cuda.pin(shared.rings.blocks),
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
    row = shared.row(seat)
    games = game_log.GameLog(
        config,
        shared.environment.players,
        os.path.dirname(shared.checkpoints),
        shared.actor_names,
        shared.learner_names[0],
        _make_league(shared, the_learner, row),
    )
    return learner_loop.LearnerLoop(
        config,
        shared.live,
        the_learner,
        the_batcher,
        the_accounts,
        shared.num_actors,
        shared.store,
        shared.control,
        row,
        shared.learner_record,
        games,
        snapshots.Writer(the_learner.parameters.flat, shared.snapshots, interval),
        shared.checkpoints,
        shared.learner_memory,
        the_replay,
        shared.policy,
        _make_member(shared, the_learner, games),
    )


def _make_member(
    shared: shared_lib.Shared, the_learner: learner.Learner, games: game_log.GameLog
) -> member.Member | None:
    """Returns the policy as a member of the population, or None without one."""
    if shared.population is None:
        return None
    interval = shared.whole.population.interval
    return member.Member(shared.population, shared.number, interval, the_learner, games)


def _make_league(
    shared: shared_lib.Shared,
    the_learner: learner.Learner,
    row: control_block.ProcessRow,
) -> league.League | None:
    if not derived.has_league(shared.config):
        return None
    return league.League(
        shared.config.league,
        os.path.dirname(shared.checkpoints),
        shared.league,
        the_learner,
        row.beat_on,
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
