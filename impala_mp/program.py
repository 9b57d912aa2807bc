"""One training, wired together: read it top to bottom."""

import os
from collections.abc import Callable
from typing import Any

import torch
from ml_collections import config_dict

from impala_mp import (
    accounting,
    agent,
    calibration,
    checkpoint,
    conclusion,
    config as config_lib,
    control_block,
    descriptors,
    display,
    ending,
    environments,
    errors,
    evaluation,
    evaluator,
    footprint,
    hyperparameters,
    inference_block,
    live_control,
    lockstep,
    nest,
    parameter_store,
    parameters,
    placement,
    record,
    replay,
    replay_settings,
    reporting,
    shared_memory,
    specs,
    supervisor,
    tasks,
    training,
    trajectory_ring,
    types,
    validation,
    workdir,
    workers,
)


def train(config: config_dict.ConfigDict, path: str, profile_updates: int = 0) -> None:
    """Trains in the folder `path`, going on from what lies there.

    Raises:
      BadInput: before anything is started or written.
      ChildFailed: a process failed past its restart budget.
    """
    num_cores = len(os.sched_getaffinity(0))
    validation.validate(config, num_cores)
    for field in ("learner.device", "inference.device"):
        check_device(field, config_lib.get(config, field))
    folder = workdir.Workdir(path)
    environment = environments.probe(config.environment)
    policy = make_agent(config, environment)
    chosen = calibration.resolve(config, environment, num_cores, folder.stored())
    validation.validate(config, num_cores)
    changes = [*folder.check(config), chosen]
    folder.check_unused()
    slots = layouts(config, environment, policy, num_cores)
    descriptors.check(config)
    found: list[str] = []
    overrides, counts = check_checkpoints(folder, found.append)
    shared = allocate(config, environment, slots, folder.checkpoints, num_cores)
    try:
        with ending.Ending() as end:
            try:
                folder.open(config)
                run = 0 if config.runtime.mode == "lockstep" else folder.run
                shared = shared._replace(profile_updates=profile_updates, run=run)
                accounting.carry_over(shared.control.row(0), counts)
                kept = live_control.restore(shared.control, overrides)
                news = [*found, *changes, *kept, *_resources(shared)]
                finished = _show(shared, folder, news, end)
            except errors.BadInput:  # of a child
                folder.withdraw()
                raise
            finally:
                release(shared)
            if finished:
                _conclude(config, policy, folder.path)
            else:
                print(f"Stopped. The same command goes on from {folder.path}.")
    finally:
        folder.close()
    if end.cut_short:
        command = conclusion.command("impala-eval")
        print(
            "Cut short on request. What was learned is saved:"
            f" {command} --workdir={folder.path} evaluates it."
        )


def _show(
    shared: workers.Shared,
    folder: workdir.Workdir,
    news: list[str],
    end: ending.Ending,
) -> bool:
    """Runs the training before a person's eyes; True when it is finished."""
    with display.Display(
        shared.config.environment.id,
        shared.config.total_agent_steps,
        log=os.path.join(folder.logs, "supervisor.log"),
    ) as screen:
        for sentence in filter(None, news):
            screen.message(sentence)
        return _run(shared, folder, screen, end)


def check_device(field: str, device: str) -> None:
    """Raises BadInput unless `device` is there; touches no CUDA."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise errors.BadInput(
            f"{field} ({device!r}) must be cpu, cuda or cuda:N: set config.{field}."
        ) from error
    if kind not in ("cpu", "cuda"):
        raise errors.BadInput(
            f"{field} ({device!r}) is not supported: use cpu, cuda or cuda:N."
        )
    # The supervisor never touches CUDA: NVML can be asked without a context.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    index = torch.device(device).index or 0
    if kind == "cuda" and index >= torch.cuda.device_count():
        raise errors.BadInput(
            f"{field} ({device!r}) is not there: {torch.cuda.device_count()}"
            f" CUDA devices are visible. Set config.{field}=cpu, or install the"
            " driver and a CUDA build of torch."
        )


def make_agent(config: Any, environment: specs.EnvironmentSpec) -> agent.Agent:
    """The first one of a run.

    Raises:
      BadInput: its network does not fit the environment, or memory.
    """
    with parameters.limited_by_memory():
        return agent.make(config, environment)


def layouts(
    config: Any, environment: specs.EnvironmentSpec, policy: agent.Agent, num_cores: int
) -> tuple[types.Trajectory, types.Trajectory, int]:
    """Specs of a slot and of a batch, and the bytes of the parameters.

    Raises:
      BadInput: they need more memory than there is, or the replay is too small.
    """
    slot, batch = (
        specs.trajectory_spec(
            environment,
            policy.distribution.num_logits,
            policy.core_state_spec(),
            config.unroll_length,
            size,
        )
        for size in (config.actors.environments, config.batch_size)
    )
    made = slot, batch, parameters.ParameterLayout(policy.network).num_bytes
    shared_memory.check_available(needed_bytes(config, made, num_cores))
    return made


def needed_bytes(
    config: Any, slots: tuple[types.Trajectory, types.Trajectory, int], num_cores: int
) -> int:
    """Memory of rings, batch and parameters, wherever they are held."""
    slot, batch, num_bytes = slots
    count = config_lib.num_actors(config, num_cores)
    rings = trajectory_ring.ring_spec(slot, count, config.actors.slots)
    return (
        shared_memory.total_bytes(rings)
        + sum(leaf.nbytes for leaf in nest.flatten(batch))
        # Store, learner and optimizer, target network, actors.
        + num_bytes * (3 + 4 + (config.algorithm == "impact") + count)
        + replay_size(config, batch)[1]
    )


def replay_size(config: Any, batch: types.Trajectory) -> tuple[int, int]:
    """Trajectories and bytes of the replay.

    Raises:
      BadInput: less than a batch fits into it.
    """
    if not config.replay.ratio:
        return 0, 0
    each = replay.trajectory_bytes(batch)
    capacity = replay_settings.capacity(config, each)
    return capacity, capacity * each


def check_checkpoints(
    folder: workdir.Workdir, tell: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, int]]:
    """What a person had set and what was counted by the newest checkpoint.

    Raises:
      BadInput: nothing there is sound.
    """
    try:
        state = checkpoint.load_newest(folder.checkpoints, tell)
    except checkpoint.Damaged as error:
        raise errors.BadInput(str(error)) from error
    if state is None:
        return {}, {}
    tell(
        f"Going on from update {state['learner']['updates']:,}, after"
        f" {state['learner']['agent_steps']:,} agent steps."
    )
    return state.get("overrides", {}), state.get("counts", {})


def allocate(
    config: Any,
    environment: specs.EnvironmentSpec,
    slots: tuple[types.Trajectory, types.Trajectory, int],
    checkpoints: str,
    num_cores: int,
) -> workers.Shared:
    """All memory that the processes of a run share."""
    slot, batch, num_bytes = slots
    count = config_lib.num_actors(config, num_cores)
    threads = config_lib.learner_threads(config, num_cores)
    control = control_block.ControlBlock(num_processes=count + 3)
    for name, value in hyperparameters.initial(config).items():
        control.set(name, value)
    return workers.Shared(
        config=config,
        environment=environment,
        batch=batch,
        control=control,
        rings=trajectory_ring.TrajectoryRings(slot, count, config.actors.slots),
        store=parameter_store.ParameterStore(num_bytes, config.health.checksums),
        inference=inference_block.InferenceBlock(count),
        learner_record=record.Record(training.record_names(config)),
        evaluation_record=record.Record(
            evaluator.record_names(tasks.suffixes(config.environment))
        ),
        checkpoints=checkpoints,
        learner_threads=threads,
        placement=placement.plan(
            sorted(os.sched_getaffinity(0)),
            count,
            config.actors.threads,
            threads,
            config_lib.server_threads(config),
        ),
    )


def _resources(shared: workers.Shared) -> list[str]:
    """What the run takes of the machine, in sentences."""
    batch_bytes = sum(leaf.nbytes for leaf in nest.flatten(shared.batch))
    holders = {"published": 3, "the learner's (beside gradient and optimizer)": 1}
    if shared.config.inference.mode == "server":
        holders["the inference server's"] = 2
    else:
        holders["the actors'"] = len(shared.placement.actors)
    if shared.config.algorithm == "impact":
        holders["the target network's"] = 1
    return [
        shared.placement.explain(
            shared.learner_threads, config_lib.server_threads(shared.config)
        ),
        footprint.explain(
            holders,
            shared.rings.memory.nbytes,
            batch_bytes,
            shared.store.num_bytes,
        ),
        footprint.explain_replay(
            *replay_size(shared.config, shared.batch),
            shared.config.replay.save,
            shared.config.shutdown.deadline_secs,
        ),
    ]


def release(shared: workers.Shared) -> None:
    for owner in (
        shared.control,
        shared.rings,
        shared.store,
        shared.inference,
        shared.learner_record,
        shared.evaluation_record,
    ):
        owner.close()


def _run(
    shared: workers.Shared,
    folder: workdir.Workdir,
    screen: display.Display,
    end: ending.Ending,
) -> bool:
    """Runs the training; True when it is finished, False when it was stopped."""
    num_actors = len(shared.rings.actor_doorbells)
    reporter = reporting.Reporter(shared, folder.path, screen, num_actors)
    try:
        if shared.config.runtime.mode == "lockstep":
            finished = lockstep.run(
                shared, screen.message, lambda state: reporter.tick([_alone(state)])
            )
            end.saved()
            return finished
        # The learner has row 0 of the control block, actor i row i + 1.
        roles = [("learner", 0), *(("actor", i) for i in range(num_actors))]
        if shared.config.evaluation.interval_secs:
            roles.append(("evaluator", 0))
        if shared.config.inference.mode == "server":
            roles.append(("inference", 0))
        finished = supervisor.Supervisor(
            shared, roles, folder.logs, screen.message, reporter.tick
        ).run()
        end.saved()
        return finished
    finally:
        if reporter.bottleneck:
            screen.message(reporter.bottleneck)
        reporter.close()


def _alone(state: str) -> supervisor.Status:
    """This process, if it is the only one."""
    return supervisor.Status("lockstep", 0, os.getpid(), 0, state, 0, 0.0, "")


def _conclude(config: Any, policy: agent.Agent, path: str) -> None:
    episodes = config.evaluation.episodes
    conclusion.tell(
        config, path, lambda: evaluation.evaluate(path, episodes, policy=policy)
    )
