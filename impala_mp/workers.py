"""Entry points of the child processes."""

import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from impala_mp import (
    actor,
    agent,
    batcher,
    control_block,
    environments,
    errors,
    evaluator,
    inference,
    inference_block,
    learner,
    life_pipe,
    parameter_store,
    parameters,
    placement,
    profiling,
    record,
    replay,
    replay_settings,
    schedules,
    seeding,
    specs,
    tasks,
    training,
    trajectory_ring,
)

END = signal.SIGUSR2  # the supervisor's own SIGTERM, for one that hangs


class Shared(NamedTuple):
    """All that crosses a process boundary, and what is needed to use it."""

    config: Any  # a frozen ConfigDict
    environment: specs.EnvironmentSpec
    batch: Any  # the batch's trajectory spec
    control: control_block.ControlBlock
    rings: trajectory_ring.TrajectoryRings
    store: parameter_store.ParameterStore
    inference: inference_block.InferenceBlock
    learner_record: record.Record
    evaluation_record: record.Record
    checkpoints: str  # folder
    learner_threads: int
    placement: placement.Placement
    profile_updates: int = 0

    def profile(self, name: str) -> profiling.Profile:
        folder = os.path.join(os.path.dirname(self.checkpoints), "profiles")
        path = os.path.join(folder, f"{name}.json")
        return profiling.Profile(path, self.profile_updates)


class Seat(NamedTuple):
    """Which process this is."""

    role: str
    index: int  # among its role
    row: int  # in the control block
    incarnation: int
    log: str  # file that takes its output and its traceback


def main(seat: Seat, shared: Shared, life: Any) -> None:
    """Runs one role to its end; the exit code is 0, or 1 with a traceback logged."""
    _settle(seat, life)
    row = shared.control.row(seat.row)
    row.set("pid", os.getpid())
    row.set("incarnation", seat.incarnation)
    row.beat(control_block.State.STARTING)
    try:
        _ROLES[seat.role](seat, shared, row)
    except errors.BadInput as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # without waiting for anyone's threads


def _settle(seat: Seat, life: life_pipe.ChildEnd) -> None:
    life.bind()
    fd = os.open(seat.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    print(f"--- incarnation {seat.incarnation}, pid {os.getpid()}", flush=True)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # A terminal's Ctrl-C and a scheduler's SIGTERM reach everyone; the supervisor alone
    # decides what they mean. Handlers, because what is ignored stays so in a program
    # that an environment starts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(END, lambda number, frame: sys.exit(1))


def _act(seat: Seat, shared: Shared, row: control_block.ProcessRow) -> None:
    placement.take(shared.placement.actors[seat.index], placement.ACTOR_NICENESS)
    torch.set_num_threads(shared.config.actors.threads)
    the_actor: actor.Actor | actor.ServedActor
    if shared.config.inference.mode == "server":
        the_actor = _act_served(seat, shared, row)
    else:
        the_actor = make_actor(seat.index, seat.incarnation, shared, row)
    profile = shared.profile(f"actor-{seat.index}")
    the_actor.run(profile.turn if seat.index == 0 else _nothing)
    profile.close()
    row.beat(control_block.State.STOPPING)


def _nothing() -> None:
    pass


def _act_served(
    seat: Seat, shared: Shared, row: control_block.ProcessRow
) -> actor.ServedActor:
    """An actor of the inference server, started."""
    config = shared.config
    node = seeding.sequence(config.seed, "actor", seat.index, seat.incarnation)
    size = config.actors.environments // inference_block.SEATS
    halves = [
        environments.make(config.environment, size, task=seat.index)
        for _ in range(inference_block.SEATS)
    ]
    made = actor.ServedActor(
        halves,
        shared.rings.ring(seat.index),
        shared.inference,
        shared.control,
        row,
        seat.index,
        seat.incarnation,
        seeding.EnvironmentSeeds(node, config.actors.environments),
    )
    row.beat(control_block.State.RESETTING)
    made.reset()
    return made


def make_actor(
    index: int, incarnation: int, shared: Shared, row: control_block.ProcessRow
) -> actor.Actor:
    """Actor `index`, its environments started."""
    config = shared.config
    node = seeding.sequence(config.seed, "actor", index, incarnation)
    environment = environments.make(
        config.environment, config.actors.environments, task=index
    )
    num_actors = len(shared.rings.actor_doorbells)
    the_actor = actor.Actor(
        agent.make(config, shared.environment),
        environment,
        shared.rings.ring(index),
        shared.store,
        shared.control,
        row,
        index,
        incarnation,
        seeding.EnvironmentSeeds(node, environment.num_envs),
        torch.Generator().manual_seed(seeding.torch_seed(node)),
        schedules.ladder(num_actors, config.actors.epsilon_ladder)[index],
    )
    row.beat(control_block.State.RESETTING)
    the_actor.reset()
    return the_actor


def _learn(seat: Seat, shared: Shared, row: control_block.ProcessRow) -> None:
    placement.take(shared.placement.learner)
    torch.set_num_threads(shared.learner_threads)
    the_training = make_training(shared, row)
    the_training.restore(report=print)
    profile = shared.profile("learner")
    the_training.run(profile.turn)
    profile.close()


def make_training(shared: Shared, row: control_block.ProcessRow) -> training.Training:
    """The learner's side of a run, not yet restored."""
    config = shared.config
    node = seeding.sequence(config.seed, "learner")
    torch.manual_seed(seeding.torch_seed(node))
    rings = shared.rings
    num_actors = len(rings.actor_doorbells)
    the_replay = _make_replay(shared, row)
    the_batcher = batcher.Batcher(
        [rings.ring(i) for i in range(num_actors)],
        rings.learner_doorbell,
        shared.batch,
        config.learner.device,
        _oldest_version(config.max_policy_lag, shared.store),
        lambda count: row.add("discarded", count),
        the_replay,
    )
    return training.Training(
        config,
        learner.Learner(config, agent.make(config, shared.environment)),
        the_batcher,
        rings,
        shared.store,
        shared.control,
        row,
        shared.learner_record,
        shared.checkpoints,
        the_replay,
    )


def _make_replay(shared: Shared, row: control_block.ProcessRow) -> replay.Replay | None:
    """Empty; None if the config has none."""
    config = shared.config
    if not config.replay.ratio:
        return None
    return replay.Replay(
        shared.batch,
        replay_settings.capacity(config, replay.trajectory_bytes(shared.batch)),
        replay_settings.num_replayed(config),
        config.replay,
        seeding.sequence(config.seed, "replay", 0, row.get("incarnation")),
    )


def _oldest_version(
    max_lag: int, store: parameter_store.ParameterStore
) -> Callable[[], int]:
    """The oldest version that may still be learned from."""
    if max_lag < 0:
        return lambda: 0
    return lambda: store.latest - max_lag


def _evaluate(seat: Seat, shared: Shared, row: control_block.ProcessRow) -> None:
    torch.set_num_threads(1)
    settings = shared.config.evaluation
    policy = agent.make(shared.config, shared.environment)
    flat = parameters.FlatParameters(policy.network).flat.numpy()
    suffixes = tasks.suffixes(shared.config.environment)
    made = [
        environments.make(
            shared.config.environment, settings.environments, training=False, task=task
        )
        for task in range(len(suffixes))
    ]
    version, round_ = 0, 0

    def alive() -> bool:
        row.beat(control_block.State.RUNNING)
        return not shared.control.stopping

    pause = _Pause(shared.control, row)
    while pause(settings.interval_secs):
        newest = shared.store.fetch(flat, newer_than=version)
        if newest <= 0:
            version = version if newest == 0 else 0
            continue
        version, round_ = newest, round_ + 1
        node = seeding.sequence(shared.config.seed, "evaluator", round_)
        by_task = {
            suffix: evaluator.evaluate(
                policy, environment, settings.episodes, settings.greedy, node, alive
            )
            for suffix, environment in zip(suffixes, made, strict=True)
        }
        if not shared.control.stopping:
            shared.evaluation_record.write(evaluator.as_record(by_task, version))


class _Pause:
    """Sleeps in short pieces, with a heartbeat; False when the run stops."""

    def __init__(
        self, control: control_block.ControlBlock, row: control_block.ProcessRow
    ) -> None:
        self._control, self._row = control, row

    def __call__(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self._control.stopping and time.monotonic() < end:
            self._row.beat(control_block.State.WAITING_FOR_DATA)
            time.sleep(min(0.2, seconds))
        return not self._control.stopping


def _infer(seat: Seat, shared: Shared, row: control_block.ProcessRow) -> None:
    settings, count = shared.config.inference, len(shared.rings.actor_doorbells)
    torch.set_num_threads(settings.threads)
    node = seeding.sequence(shared.config.seed, "inference", 0, seat.incarnation)
    inference.InferenceServer(
        shared.config,
        shared.environment,
        [shared.rings.ring(i) for i in range(count)],
        shared.inference,
        shared.store,
        shared.control,
        row,
        [shared.control.row(i + 1) for i in range(count)],
        seeding.torch_seed(node),
    ).run()
    row.beat(control_block.State.STOPPING)


_ROLES: dict[str, Callable[[Seat, Shared, control_block.ProcessRow], None]] = {
    "actor": _act,
    "learner": _learn,
    "evaluator": _evaluate,
    "inference": _infer,
}
