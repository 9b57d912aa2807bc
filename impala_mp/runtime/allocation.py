"""Sizes and allocates all shared memory of a run."""

import collections
import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from impala_mp import errors, nest, specs, types
from impala_mp.algorithms import replay
from impala_mp.config import (
    derived,
    live_hyperparameters,
    policies as policies_lib,
)
from impala_mp.networks import agent, flat_parameters
from impala_mp.runtime import resources
from impala_mp.transport import (
    control_block,
    doorbell,
    host_board,
    inference_requests,
    league_memory,
    learner_memory,
    name_tables,
    parameter_store,
    population_block,
    record_ring,
    shared as shared_lib,
    shared_memory,
    topology,
    trajectory_ring,
)
from impala_mp.workers import (
    evaluator,
    host_facts,
    learner_metrics,
    learner_state,
    member,
    memory_limit,
    snapshots,
)

GUESTS = 2  # networks of the league in each actor
_RECORDS = 256  # of the learner, between two ticks of the supervisor


class Layouts(NamedTuple):
    """Sizes of one policy's memory."""

    slot: types.Trajectory  # of specs
    batch: types.Trajectory  # of specs
    num_bytes: int  # of the parameters


class Policy(NamedTuple):
    """One policy of a run, before its memory is allocated."""

    name: str  # "" for a single one
    config: Any
    live: live_hyperparameters.LiveHyperparameters  # of the config
    environment: specs.EnvironmentSpec  # of its players
    agent: agent.Agent

    def layouts(self) -> Layouts:
        config = derived.of_rank(self.config)
        return layouts(config, self.environment, self.agent)


def layouts(
    config: Any, environment: specs.EnvironmentSpec, policy: agent.Agent
) -> Layouts:
    """Returns the layouts of a policy's memory."""
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
    if derived.has_league(config):
        slot, batch = _with_league(slot), _with_league(batch)
    num_bytes = flat_parameters.ParameterLayout(policy.network).num_bytes
    return Layouts(slot, batch, num_bytes)


def _with_league(trajectory: types.Trajectory) -> types.Trajectory:
    """Adds the layout of what a league writes of its games."""
    end = trajectory.episode_end
    game = types.LeagueGame(
        *(specs.array_spec(trajectory.shape, x) for x in ("int32", "int64", "float32"))
    )
    return trajectory._replace(episode_end=end._replace(game=game))


def without_checks(
    config: Any, environments: Mapping[str, specs.EnvironmentSpec]
) -> list[Policy]:
    """Returns the policies of a config that was checked where the learner is.

    Raises:
      BadInput: a policy's fields or network cannot be made of it here.
    """
    counts = {name: len(spec.players) for name, spec in environments.items()}
    found = []
    owns = policies_lib.of_run(config, counts)
    for own, (name, spec) in zip(owns, environments.items(), strict=True):
        live = live_hyperparameters.of_config(own)
        with policies_lib.naming(name) if name else contextlib.nullcontext():
            made = make_agent(own, live, spec)
        found.append(Policy(name, own, live, spec, made))
    return found


def facts(policy: Policy) -> host_facts.Facts:
    """Returns what an actor host must have alike."""
    layout = flat_parameters.ParameterLayout(policy.agent.network)
    return host_facts.of(policy.environment, policy.layouts().slot, layout)


def facts_of_all(policies: Sequence[Policy]) -> host_facts.Facts:
    """Returns what an actor host must have alike, for all policies."""
    return host_facts.of_all({each.name: facts(each) for each in policies})


def check_memory(policies: Sequence[Policy], num_cores: int) -> int:
    """Returns the bytes that a run needs.

    Raises:
      BadInput: memory is too small, or a replay holds less than a batch.
    """
    sizes = [(each.config, each.layouts(), num_cores) for each in policies]
    needed = sum(needed_bytes(*each) for each in sizes)
    shared_memory.check_available(needed)
    one_file = sum(_shared_bytes(*each) for each in sizes)
    saved = [_saved_bytes(config, slots) for config, slots, _ in sizes]
    resources.check_file_size(max(one_file, *saved))
    return needed


def check_room(config: Any, policies: Sequence[Policy], num_cores: int) -> None:
    """Checks memory and descriptors of the run with this config.

    Raises:
      BadInput: there are too few.
    """
    check_memory(policies, num_cores)
    seats = make_topology(config, num_cores, len(policies))
    resources.check_descriptors(config, seats)


def _ring_bytes(config: Any, slot: types.Trajectory, num_cores: int) -> int:
    count = derived.num_actors(config.actors, num_cores)
    rings = trajectory_ring.ring_spec(slot, count, config.actors.slots)
    of_hosts = trajectory_ring.ring_spec(
        slot, config.cluster.hosts, config.cluster.slots
    )
    return shared_memory.total_bytes(rings) + shared_memory.total_bytes(of_hosts)


def needed_bytes(config: Any, slots: Layouts, num_cores: int) -> int:
    """Returns the bytes of rings, batch, replay and parameters, in all processes."""
    _, batch, num_bytes = slots
    ranks = config.learner.ranks
    count = derived.num_actors(config.actors, num_cores)
    # Learner and optimizer, target network, evaluator, actors, and the league's guests.
    copies = ranks * (4 + derived.has_target_network(config))
    copies += derived.evaluates(config) + count
    copies += GUESTS * count * derived.has_league(config)
    return (
        _shared_bytes(config, slots, num_cores)
        + ranks * sum(leaf.nbytes for leaf in nest.flatten(batch))
        + copies * num_bytes
        + replay_size(config, batch)[1]
    )


def _shared_bytes(config: Any, slots: Layouts, num_cores: int) -> int:
    """Returns the bytes in the run's memory: rings, parameters, the learner's state."""
    slot, _, num_bytes = slots
    # The store, snapshots for the evaluator, and the league.
    copies = 3 + 3 * derived.evaluates(config) + derived.num_frozen(config)
    state = learner_state.num_bytes(config, (), num_bytes)
    return _ring_bytes(config, slot, num_cores) + copies * num_bytes + 2 * state


def _saved_bytes(config: Any, slots: Layouts) -> int:
    """Returns the bytes of a checkpoint."""
    replayed = replay_size(config, slots.batch)[1] * config.replay.save
    # Parameters, two means of the optimizer, the target network, and their frame.
    return int(4 * slots.num_bytes + replayed + 2**20)


def replay_size(config: Any, batch: types.Trajectory) -> tuple[int, int]:
    """Returns the trajectories and bytes of the replays of all ranks.

    Raises:
      BadInput: less than a batch or a slot fits into it.
    """
    if not derived.has_replay(config):
        return 0, 0
    settings, each = config.replay, replay.trajectory_bytes(batch)
    own = derived.replay_capacity(derived.of_rank(config), each)
    capacity = own * config.learner.ranks
    if settings.start > capacity:
        raise errors.BadInput(
            f"replay.start ({settings.start}) is more than the {capacity} trajectories"
            f" that replay.memory_mib ({settings.memory_mib}) holds. Lower"
            " config.replay.start, or set config.replay.memory_mib to at least"
            f" {settings.start * each / 2**20 + 0.1:.1f}."
        )
    return capacity, capacity * each


def make_topology(
    config: Any, num_cores: int, num_policies: int = 1
) -> topology.Topology:
    """Returns the seats of all processes that a run may have."""
    return topology.make(
        derived.num_actors(config.actors, num_cores),
        evaluator=derived.evaluates(config),
        inference=config.inference.mode == "server",
        num_policies=num_policies,
        apart=config.population.size > 0,
        num_groups=config.learner.processes,
        num_ranks=config.learner.ranks,
        num_hosts=config.cluster.hosts,
    )


def allocate(
    policies: Sequence[Policy],
    folder: str,
    num_cores: int,
    whole: Any = None,
    seats: topology.Topology | None = None,
    cores: Sequence[int] = (),
    **facts: Any,
) -> tuple[shared_lib.Shared, ...]:
    """Allocates the memory that the processes of a run share, policy by policy.

    Args:
      folder: of checkpoints, or of the policies if there are several.
      whole: config of the run; None: that of its only policy.
      seats: those of an actor host; None: those of the config.
      cores: to bind threads to, enough for all of them; else none is bound.
      facts: other fields, of an actor host.
    """
    config = whole or policies[0].config
    seats = seats or make_topology(config, num_cores, len(policies))
    count = len(seats.actors)
    all_actors = facts.pop("all_actors", None)
    num_hosts = seats.num_hosts
    if all_actors is None:
        all_actors = count + num_hosts * derived.host_actors(config, num_cores)
    threads = derived.learner_threads(config, num_cores)
    ranks = config.learner.ranks
    file = shared_memory.MemoryFile()  # a child takes few descriptors
    bells = collections.defaultdict[int, doorbell.Doorbell](doorbell.Doorbell)
    control = control_block.ControlBlock(len(seats.seats), len(policies), ranks, file)
    common = dict[str, Any](
        whole=config,
        topology=seats,
        inference=inference_requests.InferenceBlock(count, len(policies), file),
        names=name_tables.NameTables(
            all_actors + len(policies) * ranks, types.NUMBERS, file
        ),
        evaluation_record=record_ring.RecordRing(
            evaluator.record_names(_evaluated(policies)), file=file
        ),
        learner_threads=threads,
        cores=resources.plan(
            cores,
            count,
            config.actors.threads,
            threads,
            derived.server_threads(config.inference),
            derived.num_learners(config),
        ),
        all_actors=all_actors,
    )
    common |= facts
    if num_hosts:
        common["hosts"] = host_board.HostBoard(num_hosts, len(policies), file)
    if size := config.population.size:
        common["population"] = population_block.PopulationBlock(size, file)
    return tuple(
        _allocate(each, number, control.of(number), folder, common, file, bells)
        for number, each in enumerate(policies)
    )


def _evaluated(policies: Sequence[Policy]) -> tuple[str, ...]:
    """Returns the suffixes of evaluated returns: by policy, player or task."""
    if len(policies) > 1:
        return tuple(f"/{each.name}" for each in policies)
    (one,) = policies
    return derived.episode_suffixes(one.config.environment, one.environment.players)


def _allocate(
    policy: Policy,
    number: int,
    control: control_block.ControlBlock,
    folder: str,
    common: dict[str, Any],
    file: shared_memory.MemoryFile,
    bells: Mapping[int, doorbell.Doorbell],
) -> shared_lib.Shared:
    """Allocates the memory of one policy; `bells` are those of the seats, by row."""
    config, slots, seats = policy.config, policy.layouts(), common["topology"]
    players = policy.environment.players
    metrics = learner_metrics.record_names(config, players)
    state_bytes = learner_state.num_bytes(config, players, slots.num_bytes)
    if "population" in common:
        metrics += member.METRICS
    if policy.name:
        folder = os.path.join(folder, policy.name, "checkpoints")
    readers, writers = ([bells[row] for row in rows] for rows in seats.bells(number))
    for name, value in policy.live.initial().items():
        control.set(name, value)
    return shared_lib.Shared(
        policy=policy.name,
        number=number,
        config=config,
        live=policy.live,
        environment=policy.environment,
        batch=slots.batch,
        control=control,
        rings=trajectory_ring.TrajectoryRings(
            slots.slot,
            len(seats.actors_of(number)),
            config.actors.slots,
            seats.readers(number),
            seats.num_hosts,
            config.cluster.slots,
            (readers, writers),
            file,
        ),
        store=parameter_store.ParameterStore(
            slots.num_bytes, config.health.checksums, file
        ),
        snapshots=snapshots.make_store(
            slots.num_bytes * derived.evaluates(config), file
        ),
        league=league_memory.LeagueMemory(
            derived.num_frozen(config), slots.num_bytes, file
        ),
        learner_memory=learner_memory.LearnerMemory(
            state_bytes if seats.learners else 0, file
        ),
        learner_record=record_ring.RecordRing(metrics, _RECORDS, file),
        checkpoints=folder,
        **common,
    )


def release(policies: Sequence[shared_lib.Shared]) -> None:
    """Frees the memory of all policies."""
    first = policies[0]
    common = [first.control, first.inference, first.names, first.evaluation_record]
    if first.population:
        common.append(first.population)
    for each in policies:
        own = each.rings, each.store, each.snapshots, each.league, each.learner_memory
        for owner in (*own, each.learner_record):
            owner.close()
    for owner in filter(None, (*common, first.hosts)):
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
