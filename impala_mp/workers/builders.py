"""Builds an actor or a learner from the shared memory of a run."""

import contextlib
import os
from collections.abc import Callable, Sequence

import torch

from impala_mp import seeding
from impala_mp.algorithms import replay
from impala_mp.config import derived, schedules
from impala_mp.environments import league_games, vector
from impala_mp.networks import agent
from impala_mp.transport import (
    control_block,
    parameter_store,
    shared as shared_lib,
    topology,
)
from impala_mp.workers import (
    actor,
    batcher,
    game_log,
    guests,
    intake,
    league,
    learner,
    learner_loop,
    member,
    party,
    snapshots,
)


def make_actor(
    seat: topology.Seat, incarnation: int, policies: Sequence[shared_lib.Shared]
) -> actor.Actor:
    """Returns the actor of one seat, its environments started; close it at the end."""
    own = [policies[number] for number in seat.policies]
    common, config = own[0], own[0].config
    row, node = common.row(seat), common.seeds("actor", seat.index, incarnation)
    index = common.topology.actors_of(common.number).index(seat)  # of its rings
    with contextlib.ExitStack() as after_failure:
        environment = league_games.make(
            config,
            sum(each.config.actors.environments for each in own),
            task=index,
        )
        after_failure.callback(environment.close)
        generator = torch.Generator().manual_seed(seeding.torch_seed(node))
        the_actor = actor.Actor(
            [_make_party(each, index) for each in own],
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


def _make_party(shared: shared_lib.Shared, index: int) -> party.Party:
    return party.Party(
        _acting_agent(shared),
        shared.rings.ring(index),
        shared.store,
        shared.control,
        shared.config.actors.environments,
        _rungs(shared, index),
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
    num_actors = len(shared.topology.actors_of(shared.number))
    return schedules.rungs(shared.config.actors, num_actors)[index]


def make_learner(
    seat: topology.Seat, shared: shared_lib.Shared
) -> learner_loop.LearnerLoop:
    """Returns the learner of one policy, in a process of `seat`, not yet restored."""
    config, rings, row = shared.config, shared.rings, shared.row(seat)
    node = seeding.sequence(config.seed, "learner", shared.number)
    torch.manual_seed(seeding.torch_seed(node))
    the_replay = _make_replay(shared, row)
    books = shared.control.books
    the_batcher = batcher.Batcher(
        [
            rings.ring(number)
            for number in shared.topology.rings(shared.number, seat.rank)
        ],
        rings.learner_doorbell,
        shared.batch,
        config.learner.device,
        _oldest_version(config.max_policy_lag, shared.store),
        lambda count: books.add("discarded", count),
        the_replay,
        intake.Intake(config.replay, the_replay) if config.replay.reuse else None,
    )
    the_learner = learner.Learner(config, agent.make(config, shared.environment))
    games = game_log.GameLog(
        config,
        shared.environment.players,
        os.path.dirname(shared.checkpoints),
        shared.actor_names,
        shared.learner_names,
        _make_league(shared, the_learner, row),
    )
    return learner_loop.LearnerLoop(
        config,
        shared.live,
        the_learner,
        the_batcher,
        rings,
        shared.store,
        shared.control,
        row,
        shared.learner_record,
        games,
        snapshots.Writer(
            the_learner.parameters.flat,
            shared.snapshots,
            derived.evaluation_interval(config) if derived.evaluates(config) else 0,
        ),
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
    shared: shared_lib.Shared, row: control_block.ProcessRow
) -> replay.Replay | None:
    """Returns an empty replay, or None without one."""
    config = shared.config
    if not derived.has_replay(config):
        return None
    return replay.Replay(
        shared.batch,
        derived.replay_capacity(config, replay.trajectory_bytes(shared.batch)),
        derived.num_replayed(config),
        derived.num_new(config),
        config.replay,
        shared.seeds("replay", shared.number, row.get("incarnation")),
    )


def _oldest_version(
    max_lag: int, store: parameter_store.ParameterStore
) -> Callable[[], int]:
    """Returns a function that gives the oldest version that may be learned."""
    if max_lag < 0:
        return lambda: 0
    return lambda: store.latest - max_lag
