"""One training, wired together: read it top to bottom."""

import os
import statistics
from collections.abc import Callable
from typing import Any

import torch
from ml_collections import config_dict

from impala_mp import (
    agent,
    calibration,
    checkpoint,
    config as config_lib,
    control_block,
    curves,
    display,
    environments,
    errors,
    evaluator,
    footprint,
    hyperparameters,
    inference_block,
    live_control,
    lockstep,
    metrics,
    nest,
    parameter_store,
    parameters,
    placement,
    record,
    replay,
    replay_settings,
    reporting,
    saved_run,
    shared_memory,
    specs,
    supervisor,
    tasks,
    training,
    trajectory_ring,
    types,
    validation,
    video as video_lib,
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
    chosen = calibration.resolve(config, environment, num_cores, folder.stored())
    validation.validate(config, num_cores)
    changes = [*folder.check(config), chosen]
    policy = agent.make(config, environment)
    slots = layouts(config, environment, policy, num_cores)
    folder.open(config)
    try:
        with display.Display(
            config.environment.id,
            config.total_agent_steps,
            log=os.path.join(folder.logs, "supervisor.log"),
        ) as screen:
            overrides = check_checkpoints(folder, screen.message)
            shared = allocate(config, environment, slots, folder.checkpoints, num_cores)
            shared = shared._replace(profile_updates=profile_updates)
            kept = live_control.restore(shared.control, overrides)
            for sentence in (*changes, *kept, *_resources(shared)):
                if sentence:
                    screen.message(sentence)
            try:
                finished = _run(shared, folder, screen)
            finally:
                release(shared)
        if finished:
            _conclude(config, policy, folder)
        else:
            print(f"Stopped. The same command goes on from {folder.path}.")
    finally:
        folder.close()


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
) -> dict[str, float]:
    """What a person had set when the newest checkpoint was written.

    Raises:
      BadInput: nothing there is sound.
    """
    try:
        state = checkpoint.load_newest(folder.checkpoints, tell)
    except checkpoint.Damaged as error:
        raise errors.BadInput(str(error)) from error
    if state is None:
        return {}
    tell(
        f"Going on from update {state['learner']['updates']:,}, after"
        f" {state['learner']['agent_steps']:,} agent steps."
    )
    return state.get("overrides", {})


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
            sorted(os.sched_getaffinity(0)), count, config.actors.threads, threads
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
        shared.placement.explain(shared.learner_threads),
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
    shared: workers.Shared, folder: workdir.Workdir, screen: display.Display
) -> bool:
    """Runs the training; True when it is finished, False when it was stopped."""
    num_actors = len(shared.rings.actor_doorbells)
    reporter = reporting.Reporter(shared, folder.path, screen, num_actors)
    try:
        if shared.config.runtime.mode == "lockstep":
            return lockstep.run(shared, screen.message, lambda: reporter.tick([]))
        # The learner has row 0 of the control block, actor i row i + 1.
        roles = [("learner", 0), *(("actor", i) for i in range(num_actors))]
        if shared.config.evaluation.interval_secs:
            roles.append(("evaluator", 0))
        if shared.config.inference.mode == "server":
            roles.append(("inference", 0))
        return supervisor.Supervisor(
            shared, roles, folder.logs, screen.message, reporter.tick
        ).run()
    finally:
        if reporter.bottleneck:
            screen.message(reporter.bottleneck)
        reporter.close()


def _conclude(config: Any, policy: agent.Agent, folder: workdir.Workdir) -> None:
    """Final evaluation, learning curve, and where everything is."""
    result = evaluate(folder.path, config.evaluation.episodes, policy=policy)
    print(
        f"\nFinal evaluation: mean return {result['mean']:.3f}, standard deviation"
        f" {result['std']:.3f}, over {result['episodes']} episodes"
        f" ({result['protocol']}).\n"
        f"Run:            {folder.path}\n"
        f"Learning curve: {_learning_curve(config, folder)}\n"
        f"TensorBoard:    tensorboard --logdir={folder.path}\n"
        f"Evaluate again: impala-eval --workdir={folder.path} --episodes=100"
    )


def _learning_curve(config: Any, folder: workdir.Workdir) -> str:
    """Its file, or why there is none."""
    if not any("episode/return_mean" in each for each in metrics.read(folder.path)):
        return "none, because no episode has ended in training"
    image = os.path.join(folder.path, "learning_curve.png")
    curves.plot({config.environment.id: [folder.path]}, image)
    return image


def evaluate(
    path: str,
    episodes: int,
    greedy: bool | None = None,
    policy: agent.Agent | None = None,
    video: str | None = None,
) -> dict[str, Any]:
    """Evaluates the newest checkpoint in `path`; the statistics by name.

    Raises:
      BadInput: there is no run, or no sound checkpoint.
    """
    if video:
        video_lib.check_name(video)
    run = saved_run.SavedRun(path)
    greedy = run.config.evaluation.greedy if greedy is None else greedy
    policy = run.agent(policy)
    by_task = {}
    for task, suffix in enumerate(run.tasks):
        film = video if task == 0 else None
        by_task[suffix] = _play(run, policy, episodes, greedy, task, film)
    every = [each for returns in by_task.values() for each in returns]
    several = by_task if len(by_task) > 1 else {}
    return {
        **evaluator.summarise(every)._asdict(),
        **{f"mean{k}": statistics.fmean(v) for k, v in several.items()},
        "protocol": evaluator.protocol(run.config, greedy),
        "agent_steps": run.agent_steps,
    }


def _play(
    run: saved_run.SavedRun,
    policy: agent.Agent,
    episodes: int,
    greedy: bool,
    task: int,
    video: str | None,
) -> list[float]:
    """The returns of `episodes` games of a task; `video` names a film of the first."""
    count = min(episodes, run.config.evaluation.environments)
    environment = run.environment(count, task, "rgb_array" if video else None)
    film = video_lib.Film(environment) if video else None
    returns = evaluator.evaluate(
        policy, environment, episodes, greedy, run.seed(), film or (lambda: True)
    )
    environment.close()
    if film and video:
        film.save(video)
    return returns
