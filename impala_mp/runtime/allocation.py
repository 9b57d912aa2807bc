"""Sizes and allocates all shared memory of a run."""

import os
from typing import Any

from impala_mp import errors, nest, specs, types
from impala_mp.algorithms import replay
from impala_mp.config import derived, live_hyperparameters
from impala_mp.networks import agent, flat_parameters
from impala_mp.runtime import resources
from impala_mp.transport import (
    control_block,
    inference_requests,
    learner_memory,
    name_tables,
    parameter_store,
    record_ring,
    shared as shared_lib,
    shared_memory,
    topology,
    trajectory_ring,
)
from impala_mp.workers import (
    evaluator,
    learner_metrics,
    learner_state,
    memory_limit,
    snapshots,
)

_RECORDS = 256  # of the learner, between two ticks of the supervisor


def layouts(
    config: Any, environment: specs.EnvironmentSpec, policy: agent.Agent, num_cores: int
) -> tuple[types.Trajectory, types.Trajectory, int]:
    """Returns the specs of a slot and of a batch, and the bytes of the parameters.

    Raises:
      BadInput: memory is too small, or the replay holds less than a batch.
    """
    slot, batch = (
        specs.trajectory_spec(
            environment,
            policy.output_spec(),
            policy.core_state_spec(),
            config.unroll_length,
            size,
            num_predecessors=num_predecessors,
        )
        for size, num_predecessors in (
            (config.actors.environments, 0),
            (config.batch_size, derived.num_predecessors(config)),
        )
    )
    made = slot, batch, flat_parameters.ParameterLayout(policy.network).num_bytes
    shared_memory.check_available(needed_bytes(config, made, num_cores))
    resources.check_file_size(_largest_file(config, made, num_cores))
    return made


def _largest_file(
    config: Any, slots: tuple[types.Trajectory, types.Trajectory, int], num_cores: int
) -> int:
    """Returns the bytes of the rings, or of a checkpoint if it is larger."""
    slot, batch, num_bytes = slots
    saved = replay_size(config, batch)[1]
    # Parameters, two means of the optimizer, the target network, and their frame.
    checkpoint = 4 * num_bytes + saved * config.replay.save + 2**20
    return max(_ring_bytes(config, slot, num_cores), checkpoint)


def _ring_bytes(config: Any, slot: types.Trajectory, num_cores: int) -> int:
    count = derived.num_actors(config.actors, num_cores)
    rings = trajectory_ring.ring_spec(slot, count, config.actors.slots)
    return shared_memory.total_bytes(rings)


def needed_bytes(
    config: Any, slots: tuple[types.Trajectory, types.Trajectory, int], num_cores: int
) -> int:
    """Returns the bytes of rings, batch, replay and parameters, in all processes."""
    slot, batch, num_bytes = slots
    count = derived.num_actors(config.actors, num_cores)
    return (
        _ring_bytes(config, slot, num_cores)
        + sum(leaf.nbytes for leaf in nest.flatten(batch))
        # Store, learner and optimizer, snapshots and evaluator, target network, actors.
        + num_bytes
        * (
            3
            + 4
            + 4 * derived.evaluates(config)
            + derived.has_target_network(config)
            + count
        )
        + replay_size(config, batch)[1]
        + 2 * learner_state.num_bytes(config, (), num_bytes)
    )


def replay_size(config: Any, batch: types.Trajectory) -> tuple[int, int]:
    """Returns the trajectories and bytes of the replay in `config.replay`.

    Raises:
      BadInput: less than a batch or a slot fits into it.
    """
    if not derived.has_replay(config):
        return 0, 0
    settings, each = config.replay, replay.trajectory_bytes(batch)
    capacity = derived.replay_capacity(config, each)
    if settings.start > capacity:
        raise errors.BadInput(
            f"replay.start ({settings.start}) is more than the {capacity} trajectories"
            f" that replay.memory_mib ({settings.memory_mib}) holds. Lower"
            " config.replay.start, or set config.replay.memory_mib to at least"
            f" {settings.start * each / 2**20 + 0.1:.1f}."
        )
    return capacity, capacity * each


def make_topology(config: Any, num_cores: int) -> topology.Topology:
    """Returns the seats of all processes that a run may have."""
    return topology.make(
        derived.num_actors(config.actors, num_cores),
        evaluator=derived.evaluates(config),
        inference=config.inference.mode == "server",
    )


def allocate(
    config: Any,
    live: live_hyperparameters.LiveHyperparameters,
    environment: specs.EnvironmentSpec,
    slots: tuple[types.Trajectory, types.Trajectory, int],
    checkpoints: str,
    num_cores: int,
) -> shared_lib.Shared:
    """Allocates the memory that the processes of a run share."""
    slot, batch, num_bytes = slots
    seats = make_topology(config, num_cores)
    count = len(seats.actors)
    threads = derived.learner_threads(config, num_cores)
    control = control_block.ControlBlock(num_processes=len(seats.seats))
    for name, value in live.initial().items():
        control.set(name, value)
    return shared_lib.Shared(
        config=config,
        live=live,
        environment=environment,
        batch=batch,
        topology=seats,
        control=control,
        rings=trajectory_ring.TrajectoryRings(slot, count, config.actors.slots),
        store=parameter_store.ParameterStore(num_bytes, config.health.checksums),
        snapshots=snapshots.make_store(num_bytes * derived.evaluates(config)),
        learner_memory=learner_memory.LearnerMemory(
            learner_state.num_bytes(config, environment.players, num_bytes)
        ),
        inference=inference_requests.InferenceBlock(count),
        names=name_tables.NameTables(count + 1, types.NUMBERS),
        learner_record=record_ring.RecordRing(
            learner_metrics.record_names(config, environment.players), _RECORDS
        ),
        evaluation_record=record_ring.RecordRing(
            evaluator.record_names(
                derived.episode_suffixes(config.environment, environment.players)
            )
        ),
        checkpoints=checkpoints,
        learner_threads=threads,
        cores=resources.plan(
            sorted(os.sched_getaffinity(0)),
            count,
            config.actors.threads,
            threads,
            derived.server_threads(config.inference),
        ),
    )


def release(shared: shared_lib.Shared) -> None:
    for owner in (
        shared.control,
        shared.rings,
        shared.store,
        shared.snapshots,
        shared.learner_memory,
        shared.inference,
        shared.names,
        shared.learner_record,
        shared.evaluation_record,
    ):
        owner.close()


def make_agent(
    config: Any,
    live: live_hyperparameters.LiveHyperparameters,
    environment: specs.EnvironmentSpec,
) -> agent.Agent:
    """Makes the first agent of a run.

    Raises:
      BadInput: its network does not fit the environment or memory, or its actions
        have no uniform distribution for epsilon.
    """
    for value in live.schedules["epsilon"].values:
        specs.check_epsilon(environment.action, value)
    with memory_limit.limited_by_memory():
        return agent.make(config, environment)
