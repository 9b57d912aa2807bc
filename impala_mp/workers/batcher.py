"""Batcher: copies whole slots, in arrival order, into one batch [T+1, B, ...]."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_mp import nest, specs, types
from impala_mp.algorithms import cuda, replay
from impala_mp.transport import doorbell, trajectory_ring
from impala_mp.workers import intake


class Batch(NamedTuple):
    """B trajectories on the device, and their host-side headers and statistics.

    Also a slot that enters the replay, on the host.
    """

    trajectory: types.Trajectory  # tensors on the device; host-only fields are ()
    header: types.Header  # arrays int64 [B], valid until the next but one `take`
    episode_end: types.EpisodeEnd  # arrays [T, num_fresh], likewise
    parameter_version: np.ndarray  # int64 [T, B], likewise
    action: types.Nest  # arrays [T, B, ...], likewise
    acts: types.Nest  # an array bool [T+1, B], likewise, or ()
    num_fresh: int  # the first columns, which come from the rings
    sample: types.Sample | None  # tensors on the device; None without replay
    draw: replay.Draw | None  # the replay's ids of the columns


class _Stage:
    """One staging batch: host tensors (pinned for CUDA) and their device twins.

    A large part may be on the device alone: slots are copied there without a stop.
    """

    def __init__(
        self,
        spec: types.Trajectory,
        sample: Any,
        device: torch.device,
        large: int | None = None,
    ) -> None:
        """`sample` is a spec of types.Sample, or None.

        Observations from `large` bytes on are on the device alone; None: none are.
        """
        on_gpu = device.type == "cuda"

        def on_host(leaf: specs.ArraySpec) -> torch.Tensor:
            return torch.zeros(leaf.shape, dtype=_dtype(leaf), pin_memory=on_gpu)

        def by_size(leaf: specs.ArraySpec) -> torch.Tensor:
            if large is None or leaf.nbytes < large:
                return on_host(leaf)
            return torch.zeros(leaf.shape, dtype=_dtype(leaf), device=device)

        observation = nest.map_structure(by_size, spec.time_step.observation)
        rest = spec._replace(time_step=spec.time_step._replace(observation=()))
        trajectory, words = nest.map_structure(on_host, (rest, sample or ()))
        trajectory = trajectory._replace(
            time_step=trajectory.time_step._replace(observation=observation)
        )
        self.arrays = nest.map_structure(
            lambda x: x if x.is_cuda else x.numpy(), (trajectory, words)
        )
        learned = trajectory._replace(episode_end=(), parameter_version=(), header=())
        self.learned = self.device = learned, words
        if on_gpu:
            self.device = nest.map_structure(lambda x: x.to(device), self.learned)
            self.copied, self.used = torch.cuda.Event(), torch.cuda.Event()


def _dtype(leaf: specs.ArraySpec) -> torch.dtype:
    found: torch.dtype = getattr(torch, leaf.dtype.name)
    return found


class Batcher:
    """Consumer of the rings: copies each slot once, and releases it.

    Fresh trajectories are inserted into the replay before replayed ones are drawn, on
    the host, so that there is always something to draw.

    A batch is taken only when all of its slots are there. Until then the trajectories
    stay in the rings and survive the learner. With an intake the slots go into the
    replay one by one (`arrive`), and all of a batch is drawn from there.

    On a GPU two stagings let the host gather a batch while the device works on the last
    one; that costs one update of policy lag. Large observations are copied from the
    slots to the device where the rings are pinned. On a CPU nothing overlaps, and one
    staging is enough.
    """

    def __init__(
        self,
        rings: list[trajectory_ring.TrajectoryRing],
        bell: doorbell.Doorbell,
        spec: types.Trajectory,
        device: str,
        oldest_version: Callable[[], int] = lambda: 0,
        discarded: Callable[[int], None] = lambda count: None,
        the_replay: replay.Replay | None = None,
        the_intake: intake.Intake | None = None,
        are_pinned: bool = False,
    ) -> None:
        """Slots of a version before `oldest_version()` are discarded.

        `discarded` is called with their number of trajectories. `the_replay` keeps the
        fresh trajectories, and fills the last columns of a batch. `are_pinned`: the
        device can copy from the rings by itself.
        """
        self.intake = the_intake
        self._arriving = rings[0]  # ring of the last arrival
        self._oldest_version, self._discarded = oldest_version, discarded
        self._rings, self.bell = rings, bell
        self._device = torch.device(device)
        self._replay = the_replay
        size = spec.header.actor.shape[0]
        self.num_fresh = size - (the_replay.num_replayed if the_replay else 0)
        word = specs.array_spec((size,), np.float32)
        sample = types.Sample(word, word) if the_replay else None
        slot_size = rings[0].slots[0].header.actor.shape[0]
        self._num_slots = self.num_fresh // slot_size
        self._slot_size = slot_size
        self._cuda = self._device.type == "cuda"
        large = cuda.LARGE * self._num_slots
        self._stages = [
            _Stage(spec, sample, self._device, large if are_pinned else None)
            for _ in range(1 + self._cuda)
        ]
        observation = self._stages[0].arrays[0].time_step.observation
        # The device reads slots, which must keep still until it has.
        self._is_direct = any(
            isinstance(leaf, torch.Tensor) for leaf in nest.flatten(observation)
        )
        self._stream: Any = torch.cuda.Stream(self._device) if self._cuda else None
        self.num_taken = 0  # batches
        self.num_released = 0  # trajectories whose slots the rings have back

    def _discard_stale(self) -> None:
        oldest = self._oldest_version()
        for ring in self._rings:
            while (
                ring.num_committed()
                and ring.peek(0).parameter_version[0].min() < oldest
            ):
                self._discarded(self._slot_size)
                ring.release(1)

    def ready(self) -> bool:
        """Returns True if the rings, or the replay with an intake, hold a batch."""
        if self.intake:
            return self.intake.may_learn
        self._discard_stale()
        return self.num_waiting() >= self._num_slots

    def num_waiting(self) -> int:
        """Returns the number of slots in the rings."""
        return sum(ring.num_committed() for ring in self._rings)

    def discard_all(self) -> int:
        """Discards the slots in the rings, which nothing learns; returns how many."""
        total = 0
        for ring in self._rings:
            if count := ring.num_committed():
                self._discarded(count * self._slot_size)
                ring.release(count)
                total += count
        return total

    def arrive(self) -> Batch | None:
        """Copies the oldest slot into the replay, if it may enter; else returns None.

        The slot is to be read before `let_go`, which gives its place back. Without an
        intake nothing arrives: `take` has the fresh trajectories.
        """
        if self.intake is None or not self.intake.may_insert:
            return None
        self._discard_stale()
        filled = [ring for ring in self._rings if ring.num_committed()]
        if not filled:
            return None
        ring = min(filled, key=lambda ring: ring.peek(0).header.committed_ns[0])
        slot = ring.peek(0)
        assert self._replay is not None
        self.intake.insert(self._slot_size)
        self._replay.insert(slot, self._slot_size)
        self._arriving = ring
        return _on_host(slot)

    def let_go(self) -> None:
        """Releases the slot of the last arrival."""
        self._arriving.release(1)
        self.num_released += self._slot_size

    def take(self) -> Batch:
        """Takes the oldest trajectories, and replayed ones. Only if `ready`."""
        if self._cuda and self.num_taken:
            used = self._stages[(self.num_taken - 1) % 2].used
            used.record(torch.cuda.current_stream(self._device))
        stage = self._stages[self.num_taken % len(self._stages)]
        arrays, sample = stage.arrays
        with self._copying(stage):
            counts = self._gather(arrays)
            if not self._is_direct:
                self._release(counts)
            draw = self._replay.fill(arrays, sample) if self._replay else None
        if self._is_direct:
            self._release(counts)
        self.num_taken += 1
        self.num_released += self.num_fresh
        if self.intake:
            self.intake.learn(len(arrays.header.actor))
        ends = nest.map_structure(
            lambda leaf: leaf[:, : self.num_fresh], arrays.episode_end
        )
        trajectory, on_device = stage.device
        return Batch(
            trajectory,
            arrays.header,
            ends,
            arrays.parameter_version,
            arrays.agent_output.action,
            arrays.time_step.acts,
            self.num_fresh,
            on_device or None,
            draw,
        )

    def _gather(self, batch: types.Trajectory) -> list[int]:
        """Copies the oldest slots; returns their numbers, by ring."""
        arrivals = [
            (ring.peek(offset).header.committed_ns[0], i, offset)
            for i, ring in enumerate(self._rings)
            for offset in range(ring.num_committed())
        ]
        counts = [0] * len(self._rings)
        for position, (_, i, offset) in enumerate(sorted(arrivals)[: self._num_slots]):
            self._copy(self._rings[i].peek(offset), batch, position)
            counts[i] += 1
        return counts

    def _release(self, counts: list[int]) -> None:
        for ring, count in zip(self._rings, counts, strict=True):
            if count:
                ring.release(count)

    def _copy(
        self, slot: types.Trajectory, batch: types.Trajectory, position: int
    ) -> None:
        columns = slice(position * self._slot_size, (position + 1) * self._slot_size)
        if slot.header.has_numbers[0]:  # where games end; the rest is not written
            over = ~np.isnan(slot.episode_end.episode_return)
            numbers = batch.episode_end.numbers[:, columns]
            numbers[over] = slot.episode_end.numbers[over]

        def put(axis: int, source: np.ndarray, target: Any) -> None:
            part = target[:, columns] if axis else target[columns]
            if isinstance(part, torch.Tensor):
                part.copy_(torch.from_numpy(source), non_blocking=True)
            else:
                part[...] = source

        nest.map_batch(put, _dense(slot), _dense(batch))

    @contextlib.contextmanager
    def _copying(self, stage: _Stage) -> Iterator[None]:
        """Copies to the device what the block writes into `stage` on the host.

        After it the device reads no slot.
        """
        if not self._cuda:
            yield
            return
        stage.copied.synchronize()
        with torch.cuda.stream(self._stream):
            if self.num_taken >= 2:
                self._stream.wait_event(stage.used)
            yield
            for host, device in zip(
                nest.flatten(stage.learned), nest.flatten(stage.device), strict=True
            ):
                if host is not device:
                    device.copy_(host, non_blocking=True)
            stage.copied.record(self._stream)
        torch.cuda.current_stream(self._device).wait_event(stage.copied)
        if self._is_direct:
            stage.copied.synchronize()


def _on_host(slot: types.Trajectory) -> Batch:
    """Returns a slot as a batch of fresh trajectories; views of the ring's memory."""
    tensors = slot._replace(episode_end=(), parameter_version=(), header=())
    return Batch(
        nest.map_structure(torch.from_numpy, tensors),
        slot.header,
        slot.episode_end,
        slot.parameter_version,
        slot.agent_output.action,
        slot.time_step.acts,
        num_fresh=len(slot.header.actor),
        sample=None,
        draw=None,
    )


def _dense(trajectory: types.Trajectory) -> types.Trajectory:
    """Returns the parts whose every element is written."""
    end = trajectory.episode_end
    return trajectory._replace(episode_end=end._replace(numbers=()))
