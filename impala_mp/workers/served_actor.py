"""Actor whose actions come from the inference server."""

import time
from collections.abc import Callable

import numpy as np

from impala_mp import nest, types
from impala_mp.environments import vector
from impala_mp.transport import (
    control_block,
    inference_requests,
    trajectory_ring,
    trajectory_slot,
)
from impala_mp.workers import actor, party


class ServedActor(actor.RingActor):
    """Actor that asks the inference server for actions.

    It steps two halves of its environments in turn: one is emulated while the other
    is inferred.
    """

    def __init__(
        self,
        halves: list[vector.VectorEnvironment],
        ring: trajectory_ring.TrajectoryRing,
        block: inference_requests.InferenceBlock,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: Callable[[], list[int]],
        run: int = 0,
    ) -> None:
        numbers = halves[0].numbers
        for each in halves:
            each.numbers = numbers
        self._writer, self._ring = party.RingWriter(ring), ring
        super().__init__(
            [self._writer], control, row, index, incarnation, new_seeds, numbers, run
        )
        self._environments = halves
        self._seats, self._bell = block.seats(index), block.server_doorbell
        self._slots = [
            [
                trajectory_slot.of_slot(trajectory_slot.half(slot, h))
                for h in range(len(halves))
            ]
            for slot in ring.slots
        ]
        self._time_steps: list[types.TimeStep] = []

    def reset(self) -> None:
        seeds = self._new_seeds()
        count = len(seeds) // len(self._environments)
        self._time_steps = [
            nest.map_structure(np.array, each.reset(seeds[h * count : (h + 1) * count]))
            for h, each in enumerate(self._environments)
        ]

    def close(self) -> None:
        for each in self._environments:
            each.close()

    def run(self, each_unroll: Callable[[], None] = lambda: None) -> None:
        """Acts until the run stops."""
        while not self._control.stopping:
            if self._wait_for_space() and self.guarded_unroll():
                each_unroll()

    def unroll(self) -> bool:
        """Fills one slot and commits it; returns False if it has to start over."""
        index = self._ring.open_index()
        halves = self._slots[index]
        for h, slot in enumerate(halves):
            trajectory_slot.write(slot.time_step_arrays[0], self._time_steps[h])
            self._request(h, index, 0)
        num_steps = len(halves[0].outputs)
        for t in range(num_steps):
            for h, slot in enumerate(halves):
                if self._await(h) <= 0:
                    return False
                self._step(h, slot, t)
                if t + 1 < num_steps:
                    self._request(h, index, t + 1)
        self._commit(self._environments)
        return True

    def _request(self, half: int, slot: int, row: int) -> None:
        self._seats[half].request(slot, row)
        self._bell.ring()

    def _await(self, half: int) -> int:
        """Returns the version that acted; 0 if the run stops; or START_OVER."""
        start = time.perf_counter_ns()
        version = self._seats[half].answer()
        while not version and not self._control.stopping:
            self._row.beat(control_block.State.WAITING_FOR_INFERENCE)
            self._ring.wait_to_be_woken(actor.WAIT_SECS)
            version = self._seats[half].answer()
        self._row.add("inference_ns", time.perf_counter_ns() - start)
        return version

    def _step(self, half: int, slot: trajectory_slot.SlotRows, t: int) -> None:
        row = self._row
        row.beat(control_block.State.RUNNING)
        start = time.perf_counter_ns()
        time_step, episode_end = self._environments[half].step(slot.actions[t])
        trajectory_slot.write(slot.time_step_arrays[t + 1], time_step)
        self._writer.write_end(slot.episode_ends[t], t, episode_end)
        # Copied at once, so that an unroll that starts over begins with the latest row.
        nest.map_structure(np.copyto, self._time_steps[half], time_step)
        row.add("environment_ns", time.perf_counter_ns() - start)
        row.add("agent_steps", self._environments[half].num_envs)
