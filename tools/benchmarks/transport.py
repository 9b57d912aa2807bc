"""Subjects `transport` and `parameters`: our shared memory against a plain memcpy."""

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import children, context as context_lib
from impala_mp import nest, specs, types
from impala_mp.transport import doorbell, parameter_store, trajectory_ring

_SECS = 1.0  # of each repeat


def _image_slot() -> types.Trajectory:
    """592 KB of Atari images: T = 20, E = 1."""
    image = specs.array_spec((84, 84, 4), np.uint8)
    environment = specs.EnvironmentSpec(image, specs.DiscreteSpec(6), 4)
    output = specs.actor_critic_output(environment.action, 6)
    return specs.trajectory_spec(environment, output, (), 20, 1)


def _copy(source: types.Trajectory, target: types.Trajectory) -> None:
    for s, t in zip(nest.flatten(source), nest.flatten(target), strict=True):
        np.copyto(t, s)


def _ones(spec: types.Trajectory) -> types.Trajectory:
    return nest.map_structure(lambda leaf: np.ones(leaf.shape, leaf.dtype), spec)


def _write_slots(ring: trajectory_ring.TrajectoryRing, spec: types.Trajectory) -> None:
    """Fills slots, header excepted, as fast as they come free."""
    source = _ones(spec)
    while True:
        if ring.wait_for_space(0.2):
            slot = ring.slots[ring.open_index()]
            _copy(source._replace(header=()), slot._replace(header=()))  # type: ignore[arg-type]
            ring.commit(0, 0)


def _slots_per_sec(spec: types.Trajectory) -> float:
    rings = trajectory_ring.TrajectoryRings(spec, 1, 3)
    ring, target = rings.ring(0), _ones(spec)
    writer = children.start(_write_slots, rings.ring(0), spec)
    count, start = -20, 0.0
    while count < 0 or time.perf_counter() - start < _SECS:
        if not ring.num_committed():
            if not rings.learner_doorbells[0].wait(0.2):
                children.check([writer])
            continue
        _copy(ring.peek(0), target)
        ring.release(1)
        count += 1
        if count == 0:
            start = time.perf_counter()
    elapsed = time.perf_counter() - start
    children.end(writer)
    rings.close()
    return count / elapsed


def _echo(mine: doorbell.Doorbell, theirs: doorbell.Doorbell) -> None:
    while True:
        if mine.wait(1.0):
            theirs.ring()


def _wake_up_secs() -> float:
    """Half of a round trip between two processes that sleep on their doorbells."""
    here, there = doorbell.Doorbell(), doorbell.Doorbell()
    echo = children.start(_echo, there, here)
    trips = []
    for _ in range(500):
        start = time.perf_counter()
        there.ring()
        while not here.wait(1.0):
            children.check([echo])
        trips.append(time.perf_counter() - start)
    children.end(echo)
    return float(np.median(trips)) / 2


def _waiting_core_share(wait: Callable[[], Any]) -> float:
    """CPU time of a process that waits, a second."""
    shares = children.FORK.SimpleQueue()

    def waiting() -> None:
        end = time.monotonic() + 2.0
        before = resource.getrusage(resource.RUSAGE_SELF)
        while time.monotonic() < end:
            wait()
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        shares.put(used / 2.0)

    child = children.start(waiting)
    child.join()
    children.check([child])
    return shares.get()


def _waiting_shares(spec: types.Trajectory) -> tuple[float, float]:
    """Measures a waiting actor (full ring) and a waiting learner (empty rings)."""
    rings = trajectory_ring.TrajectoryRings(spec, 1, 1)
    learner = _waiting_core_share(lambda: rings.learner_doorbells[0].wait(0.2))
    ring = rings.ring(0)
    ring.commit(0, 0)
    actor = _waiting_core_share(lambda: ring.wait_for_space(0.2))
    rings.close()
    return actor, learner


def transport(
    context: context_lib.Context,
) -> tuple[context_lib.Rows, context_lib.Ratios]:
    spec = _image_slot()
    nbytes = sum(leaf.nbytes for leaf in nest.flatten(spec))
    here, there = [_ones(spec) for _ in range(3)], _ones(spec)
    turn = [0]

    def memcpy() -> None:
        turn[0] = (turn[0] + 1) % 3
        _copy(here[turn[0]], there)

    repeats = range(context.options.repeats)
    plain = context_lib.rate(context.time(memcpy), 1, "slots/s")
    ring = context_lib.summary([_slots_per_sec(spec) for _ in repeats], "slots/s")
    wake = context_lib.summary([1e6 * _wake_up_secs() for _ in repeats], "µs")
    actor, learner = _waiting_shares(spec)
    rows = {
        "memcpy of a 592 KB slot": plain,
        "ring, one process to another": ring,
        "memcpy": context_lib.scaled(plain, nbytes / 1e9, "GB/s"),
        "ring": context_lib.scaled(ring, nbytes / 1e9, "GB/s"),
        "wake-up by doorbell": wake,
    }
    return rows, {
        "ring_over_memcpy": ring["median"] / plain["median"],
        "waiting_actor_core_share": actor,
        "waiting_learner_core_share": learner,
    }


def parameters(
    context: context_lib.Context,
) -> tuple[context_lib.Rows, context_lib.Ratios]:
    rows: context_lib.Rows = {}
    ratios: context_lib.Ratios = {}
    for label, count in (("1.6M", 1_600_000), ("10M", 10_000_000)):
        store = parameter_store.ParameterStore(4 * count)
        source = np.random.default_rng(0).integers(0, 255, 4 * count, np.uint8)
        target = np.empty_like(source)
        calls = {
            "memcpy of": lambda s=source, t=target: np.copyto(t, s),
            "publish": lambda s=source, to=store: to.publish(s),
            "fetch": lambda t=target, of=store: of.fetch(t),
        }
        results = {name: context.time(call) for name, call in calls.items()}
        for name, result in results.items():
            rows[f"{name} {label}"] = context_lib.scaled(result, 1e3, "ms")
        for name in ("publish", "fetch"):
            ratio = results[name]["median"] / results["memcpy of"]["median"]
            ratios[f"{name}_{label}_over_memcpy"] = ratio
        store.close()
    return rows, ratios
