"""Actor whose actions come from the inference server."""

import operator
import time
from collections.abc import Callable, Sequence

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

_Slots = tuple[trajectory_slot.SlotRows, ...]  # half of a slot, of each policy


class ServedActor(actor.RingActor):
    """Actor that asks the inference server for actions of each policy.

    It steps two halves of its environments in turn: one is emulated while the other
    is inferred.
    """

    def __init__(
        self,
        halves: list[vector.VectorEnvironment],
        rings: Sequence[trajectory_ring.TrajectoryRing],
        block: inference_requests.InferenceBlock,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: Callable[[], list[int]],
        run: int = 0,
    ) -> None:
        """`rings` are the actor's, one of each policy."""
        numbers = halves[0].numbers
        for each in halves:
            each.numbers = numbers
        writers = [party.RingWriter(ring) for ring in rings]
        super().__init__(
            writers, control, row, index, incarnation, new_seeds, numbers, run
        )
        self._environments, self._bell = halves, block.server_doorbell
        # By policy, slot and half; by half and policy.
        self._slots = [
            [
                [
                    trajectory_slot.of_slot(trajectory_slot.half(slot, h))
                    for h in range(len(halves))
                ]
                for slot in ring.slots
            ]
            for ring in rings
        ]
        seats = [block.seats(index, number) for number in range(len(rings))]
        self._seats = list(zip(*seats, strict=True))
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
        """Fills a slot of each ring and commits them; returns False to start over."""
        indices = [writer.ring.open_index() for writer in self._writers]
        # By half, then by policy.
        halves: list[_Slots] = list(
            zip(*map(operator.getitem, self._slots, indices), strict=True)
        )
        for h, slots in enumerate(halves):
            first = self._environments[h].split(self._time_steps[h])
            for slot, own in zip(slots, first, strict=True):
                trajectory_slot.write(slot.time_step_arrays[0], own)
            self._request(h, indices, 0)
        num_steps = len(halves[0][0].outputs)
        for t in range(num_steps):
            for h, slots in enumerate(halves):
                if self._await(h) <= 0:
                    return False
                self._step(h, slots, t)
                if t + 1 < num_steps:
                    self._request(h, indices, t + 1)
        self._commit(self._environments)
        return True

    def _request(self, half: int, indices: Sequence[int], row: int) -> None:
        for seat, index in zip(self._seats[half], indices, strict=True):
            seat.request(index, row)
        self._bell.ring()

    def _await(self, half: int) -> int:
        """Returns a version that acted; 0 if the run stops; or START_OVER."""
        start = time.perf_counter_ns()
        answers = [seat.answer() for seat in self._seats[half]]
        while not all(answers) and not self._control.stopping:
            self._row.beat(control_block.State.WAITING_FOR_INFERENCE)
            # The server rings here.
            self._writers[0].ring.wait_to_be_woken(actor.WAIT_SECS)
            answers = [seat.answer() for seat in self._seats[half]]
        self._row.add("inference_ns", time.perf_counter_ns() - start)
        return min(answers)

    def _step(self, half: int, slots: _Slots, t: int) -> None:
        row, environment = self._row, self._environments[half]
        row.beat(control_block.State.RUNNING)
        start = time.perf_counter_ns()
        actions = [slot.actions[t] for slot in slots]
        time_step, end = environment.step(actions[0] if len(actions) == 1 else actions)
        for writer, slot, own, its_end in zip(
            self._writers,
            slots,
            environment.split(time_step),
            environment.split_end(end),
            strict=True,
        ):
            trajectory_slot.write(slot.time_step_arrays[t + 1], own)
            writer.write_end(slot.episode_ends[t], t, its_end)
        # Copied at once, so that an unroll that starts over begins with the latest row.
        nest.map_structure(np.copyto, self._time_steps[half], time_step)
        row.add("environment_ns", time.perf_counter_ns() - start)
        row.add("agent_steps", environment.num_envs)
