"""Subjects that a training is made of: environment, inference, actor, learner, row."""

import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

from benchmarks import children, context as context_lib
from impala_mp import nest, seeding, types
from impala_mp.algorithms import (
    base,
    cuda,
    replay_correction,
    vtrace as vtrace_lib,
)
from impala_mp.config import container_limits, live_hyperparameters
from impala_mp.environments import factory
from impala_mp.networks import agent, flat_parameters, precision
from impala_mp.runtime import launch, resources
from impala_mp.transport import control_block, parameter_store, trajectory_ring
from impala_mp.workers import actor, batcher, learner, nonfinite, party

_TOOLS = pathlib.Path(__file__).resolve().parents[1]
_MINATAR = _TOOLS.parent / "experiments" / "minatar.py"
EMULATED_SECS = 2.0  # of each process of the emulators of all cores
_TOGETHER_SECS = 60.0  # until all of them are there
_ROWS = ("Breakout", "Breakout-dqn", "Breakout-iqn")  # of `learned_row`

Answer = tuple[context_lib.Rows, context_lib.Ratios]


def vtrace(context: context_lib.Context) -> Answer:
    """Time of V-trace, and its share of the forward pass of as many frames."""
    rows: context_lib.Rows = {}
    ratios: context_lib.Ratios = {}
    forward = _forward_secs_a_frame(context)
    for steps, size in ((20, 32), (20, 256), (50, 256), (100, 512)):
        inputs = torch.randn(5, steps, size, device=context.device) * 0.1

        def call(inputs: torch.Tensor = inputs) -> None:
            log_rhos, discounts, rewards, values, learnable = inputs
            vtrace_lib.from_importance_weights(
                log_rhos, discounts, rewards, values, values[0], learnable
            )

        result = context.time(call, 0.2)
        rows[f"{steps} x {size}"] = context_lib.scaled(result, 1e6, "µs")
        ratio = result["median"] / (forward * steps * size)
        ratios[f"vtrace_{steps}x{size}_over_forward"] = ratio
    return rows, ratios


def _forward_secs_a_frame(context: context_lib.Context) -> float:
    policy, batch = _resident(context)
    policy.network.to(context.device)

    @torch.no_grad()
    def forward() -> None:
        policy.unroll(batch.time_step, batch.agent_output.action, batch.core_state)

    return context.time(forward)["median"] / batch.time_step.reward.numel()


# Acting.


def _raw_step(context: context_lib.Context) -> Callable[[], Any]:
    """One vector step of what Gymnasium gives, without anything of ours."""
    count = context.config.actors.environments
    wrapped = factory.make(context.config.environment, count)
    wrapped.reset(list(range(count)))
    raw, turn = wrapped.unwrapped, [0]
    space = gymnasium.vector.utils.batch_space(raw.single_action_space, count)
    space.seed(0)
    actions = [space.sample() for _ in range(64)]

    def step() -> None:
        turn[0] = (turn[0] + 1) % 64
        raw.step(actions[turn[0]])

    return step


def environment(context: context_lib.Context) -> Answer:
    count = context.config.actors.environments
    seconds = context.time(_raw_step(context), 1.0)
    together = [_rate_of_all_cores(context) for _ in range(context.options.repeats)]
    return {
        "of one core": context_lib.rate(seconds, count, "agent steps/s"),
        "of all cores at once": context_lib.summary(together, "agent steps/s"),
        "vector step": context_lib.scaled(seconds, 1e6, "µs"),
    }, {}


def _rate_of_all_cores(context: context_lib.Context) -> float:
    """Agent steps a second of a process for each core, all at once."""
    count, cores = container_limits.num_cores(), container_limits.cores_to_bind()
    begin, rates = children.FORK.Barrier(count), children.FORK.SimpleQueue()

    def emulate(number: int) -> None:
        resources.take_cores(tuple(cores[number : number + 1]))
        step = _raw_step(context)
        step()
        begin.wait(_TOGETHER_SECS)
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < EMULATED_SECS:
            step()
            steps += context.config.actors.environments
        rates.put(steps / (time.perf_counter() - start))

    emulators = [children.start(emulate, number) for number in range(count)]
    for emulator in emulators:
        emulator.join()
    children.check(emulators)
    return sum(rates.get() for _ in emulators)


def _inference_secs(context: context_lib.Context, size: int) -> context_lib.Result:
    policy, batch = context.agent(), context.batch(size)
    row = nest.map_structure(lambda leaf: leaf[0], batch.time_step)
    state, generator = policy.initial_state(size), torch.Generator()

    @torch.inference_mode()
    def step() -> None:
        policy.step(row, state, generator=generator)

    return context.time(step)


def inference(context: context_lib.Context) -> Answer:
    sizes = sorted({1, 8, 32, 128, context.config.actors.environments})
    return {
        f"batch {size}": context_lib.scaled(
            _inference_secs(context, size), 1e6 / size, "µs a frame"
        )
        for size in sizes
    }, {}


def actor_loop(context: context_lib.Context) -> Answer:
    """Measures the actor's loop without the environment and the network."""
    seconds = {
        "environment": context.time(_raw_step(context)),
        "inference": _inference_secs(context, context.config.actors.environments),
        "actor": context_lib.scaled(
            context.time(_unroll(context)), 1 / context.config.unroll_length, "s"
        ),
    }
    rows = {
        name: context_lib.scaled(result, 1e6, "µs a vector step")
        for name, result in seconds.items()
    }
    beyond = rows["actor"]["median"]
    beyond -= rows["environment"]["median"] + rows["inference"]["median"]
    return rows, {"actor_overhead_us": beyond}


def _unroll(context: context_lib.Context) -> Callable[[], None]:
    """An actor's unroll into a ring that is emptied at once."""
    count = context.config.actors.environments
    rings = trajectory_ring.TrajectoryRings(context.spec(count), 1, 3)
    policy = context.agent()
    flat = flat_parameters.FlatParameters(policy.network).flat.numpy()
    store = parameter_store.ParameterStore(flat.nbytes)
    store.publish(flat)
    control = control_block.ControlBlock(1)
    for name, value in live_hyperparameters.of_config(context.config).initial().items():
        control.set(name, value)
    plays = party.Party(policy, rings.ring(0), store, control, count, [1.0] * count)
    the_actor = actor.Actor(
        [plays],
        factory.make(context.config.environment, count),
        control,
        control.row(0),
        0,
        0,
        seeding.EnvironmentSeeds(seeding.sequence(0, "actor"), count),
        torch.Generator(),
    )
    the_actor.reset()
    the_actor.fetch()
    ring = rings.ring(0)

    def unroll() -> None:
        the_actor.unroll()
        ring.release(1)

    return unroll


# Learning.


def _resident(
    context: context_lib.Context,
) -> tuple[agent.Agent, types.Trajectory]:
    batch = context.batch(context.config.batch_size)
    return context.agent(), context_lib.to_device(batch, context.device)


class _Watched:
    """A learner, and the watch over its steps that a training has."""

    def __init__(self, context: context_lib.Context) -> None:
        config = context.config
        self._live = base.live_from_config(config)
        self._sample = replay_correction.all_fresh(config)
        self._learner = learner.Learner(config, context.agent())
        self._folder = tempfile.TemporaryDirectory()  # for a step that goes bad
        self._guard = nonfinite.Guard(config, self._learner, self._folder.name)

    def update(self, batch: batcher.Batch) -> None:
        self._guard.before()
        metrics = self._learner.update(batch.trajectory, self._live, self._sample)
        self._guard.after(batch._replace(sample=self._sample), metrics, self._live)


def _resident_batch(context: context_lib.Context) -> batcher.Batch:
    """One that is on the device for good."""
    batch = context.batch(context.config.batch_size)
    arrays = nest.map_structure(lambda leaf: leaf.numpy(), batch)
    moved = context_lib.to_device(batch, context.device)
    return batcher.Batch(
        trajectory=moved,
        header=arrays.header,
        episode_end=arrays.episode_end,
        parameter_version=arrays.parameter_version,
        action=arrays.agent_output.action,
        acts=arrays.time_step.acts,
        num_fresh=context.config.batch_size,
        sample=None,
        draw=None,
    )


class _Live:
    """Measures a learner whose rings separate processes keep full."""

    def __init__(self, context: context_lib.Context) -> None:
        config = context.config
        spec = context.spec(config.actors.environments)
        self._rings = trajectory_ring.TrajectoryRings(spec, 2, config.actors.slots)
        on_a_gpu = config.learner.device != "cpu"
        are_pinned = on_a_gpu and cuda.pin(self._rings.blocks)
        self._learner = _Watched(context)
        self._batcher = batcher.Batcher(
            [self._rings.ring(i) for i in range(2)],
            self._rings.learner_doorbells[0],
            context.spec(config.batch_size),
            config.learner.device,
            are_pinned=are_pinned,
        )
        content = context.batch(config.actors.environments)
        self._feeders = [children.start(self._feed, content, i) for i in range(2)]

    def _feed(self, content: types.Trajectory, index: int) -> None:
        ring = self._rings.ring(index)
        sources = nest.flatten(content._replace(header=()))  # type: ignore[arg-type]
        while True:
            if ring.wait_for_space(1.0):
                slot = ring.slots[ring.open_index()]._replace(header=())
                for s, t in zip(sources, nest.flatten(slot), strict=True):
                    np.copyto(t, s.numpy())
                ring.commit(index, 0)

    def update(self) -> None:
        while not self._batcher.ready():
            children.check(self._feeders)
            self._batcher.bell.wait(0.2)
        self._learner.update(self._batcher.take())

    def close(self) -> None:
        for feeder in self._feeders:
            children.end(feeder)
        self._rings.close()


def _eager_secs(context: context_lib.Context) -> float:
    """Returns seconds an update of the same loss in plain PyTorch, in a new process."""
    plain = {k: v for k, v in os.environ.items() if k not in launch.ENVIRONMENT}
    path = os.pathsep.join([str(_TOOLS), *filter(None, [plain.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "benchmarks.eager_learner", *context.flags]
    done = subprocess.run(
        command,
        env={**plain, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(done.stdout.split()[-1])


def learn_batch(context: context_lib.Context) -> Answer:
    """The update, from a resident batch and from live rings, and its plain twin."""
    batch, resident = _resident_batch(context), _Watched(context)
    calls: dict[str, Callable[[], float]] = {}
    live = _Live(context)
    calls["resident batch"] = lambda: context.seconds_a_call(
        lambda: resident.update(batch), 2.0
    )
    calls["live rings"] = lambda: context.seconds_a_call(live.update, 2.0)
    calls["plain eager PyTorch"] = lambda: _eager_secs(context)
    values: dict[str, list[float]] = {name: [] for name in calls}
    calls["resident batch"]()
    calls["live rings"]()
    for _ in range(context.options.repeats):  # alternating: the machine is shared
        for name, call in calls.items():
            values[name].append(call())
    live.close()
    steps = context.config.unroll_length * context.config.batch_size
    rows = {
        name: context_lib.rate(
            context_lib.summary(seconds, "s"), steps, "agent steps/s"
        )
        for name, seconds in values.items()
    }
    rate = rows["resident batch"]["median"]
    return rows, {
        "learner_over_eager_time": rows["plain eager PyTorch"]["median"] / rate,
        "live_over_resident": rows["live rings"]["median"] / rate,
        "learner_ms_a_frame": 1e3 / rate,
    }


def learned_row(context: context_lib.Context) -> Answer:
    """Time a row of MinAtar's updates, beside bare passes of the same networks.

    An update has all passes and the optimizer, and is measured at both precisions. A
    bare pass is one forward and backward pass over the same rows, in float32.
    """
    make, calls = runpy.run_path(str(_MINATAR))["get_config"], {}
    for variant in _ROWS:
        for name in (precision.FLOAT32, precision.BFLOAT16):
            config = make(variant)
            config.learner.precision = name
            one = context_lib.Context(config, [], context.options)
            rows = config.unroll_length * config.batch_size
            calls[f"{variant}, update in {name}"] = _update_of(one), rows
        calls[f"{variant}, bare pass"] = _bare_pass(one), rows
    values: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(1 + context.options.repeats):  # alternating; one to warm up
        for name, (call, rows) in calls.items():
            secs = context.seconds_a_call(call, 0.5)
            values[name] += [1e6 * secs / rows] if repeat else []
    found = {k: context_lib.summary(v, "µs a row") for k, v in values.items()}
    ratios = {
        f"{variant}_row_over_bare": found[f"{variant}, update in float32"]["median"]
        / found[f"{variant}, bare pass"]["median"]
        for variant in _ROWS
    }
    return found, ratios


def _update_of(context: context_lib.Context) -> Callable[[], None]:
    batch, watched = _resident_batch(context), _Watched(context)
    return lambda: watched.update(batch)


def _bare_pass(context: context_lib.Context) -> Callable[[], None]:
    """A forward and backward pass of the network, without loss and optimizer."""
    policy, batch = _resident(context)
    policy.network.to(context.device)

    def call() -> None:
        output = policy.unroll(
            batch.time_step, batch.agent_output.action, batch.core_state
        )
        torch.stack([leaf.sum() for leaf in output]).sum().backward()

    return call
