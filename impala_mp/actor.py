"""The actor: steps E environments with one policy an unroll, straight into a slot."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from impala_mp import (
    agent,
    control_block,
    inference_block,
    nest,
    parameter_store,
    parameters,
    slot_rows,
    trajectory_ring,
    types,
)
from impala_mp.environments import interface, vector

_MAX_BAD_IN_A_ROW = 100  # unrolls; then the environment is not fit to learn from
_WAIT_SECS = 0.2  # longest sleep before the control block is looked at again


class _RingActor:
    """What every actor does with its ring."""

    def __init__(
        self,
        ring: trajectory_ring.TrajectoryRing,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: Callable[[], list[int]],
    ) -> None:
        self._ring, self._control, self._row = ring, control, row
        self._index, self._incarnation = index, incarnation
        self._new_seeds = new_seeds  # for the environments, others at each call
        self._bad_in_a_row = 0
        self._num_outside = 0  # observations, that the row counts already

    def reset(self) -> None:
        """Starts the environments, and what remembers them, anew."""
        raise NotImplementedError

    def unroll(self) -> bool:
        """Fills one slot and commits it; False if that came to nothing."""
        raise NotImplementedError

    def guarded_unroll(self) -> bool:
        """An unroll that is thrown away if the environment gives bad data."""
        try:
            done = self.unroll()
        except interface.BadData as error:
            self._start_over(error)
            return False
        self._bad_in_a_row = 0
        return done

    def _commit(self, environments: list[vector.VectorEnvironment]) -> None:
        self._ring.commit(self._index, self._incarnation)
        outside = sum(each.num_outside for each in environments)
        self._row.add("observations_outside", outside - self._num_outside)
        self._num_outside = outside

    def _start_over(self, error: interface.BadData) -> None:
        """Counts what was thrown away. A reset may give bad data in its turn."""
        bad: interface.BadData | None = error
        while bad is not None:
            print(f"An unroll is thrown away: {bad}.", flush=True)
            self._row.add(bad.counter, 1)
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= _MAX_BAD_IN_A_ROW:
                raise bad
            try:
                self.reset()
                bad = None
            except interface.BadData as again:
                bad = again

    def _wait_for_space(self) -> bool:
        if self._ring.has_space():
            return True
        self._row.beat(control_block.State.WAITING_FOR_SLOT)
        start = time.perf_counter_ns()
        there_is = self._ring.wait_for_space(_WAIT_SECS)
        self._row.add("wait_ns", time.perf_counter_ns() - start)
        return there_is


class Actor(_RingActor):
    """Environments, a copy of the parameters, and a ring to write to."""

    def __init__(
        self,
        policy: agent.Agent,
        environment: vector.VectorEnvironment,
        ring: trajectory_ring.TrajectoryRing,
        store: parameter_store.ParameterStore,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: Callable[[], list[int]],
        generator: torch.Generator,
        epsilon_exponent: float = 1.0,
    ) -> None:
        """`epsilon_exponent` is this actor's rung of the ladder."""
        super().__init__(ring, control, row, index, incarnation, new_seeds)
        self._agent, self._environment = policy, environment
        self._store, self._generator = store, generator
        self._epsilon_exponent = epsilon_exponent
        self._parameters = parameters.FlatParameters(policy.network).flat.numpy()
        self._slots = [slot_rows.of_slot(slot) for slot in ring.slots]
        self._state = policy.initial_state(environment.num_envs)
        self._time_step: types.TimeStep = None  # type: ignore[assignment]
        self._version = 0

    def reset(self) -> None:
        first = self._environment.reset(self._new_seeds())
        self._time_step = nest.map_structure(np.array, first)
        self._state = self._agent.initial_state(self._environment.num_envs)

    def run(self, each_unroll: Callable[[], None] = lambda: None) -> None:
        """Acts until the run stops."""
        while not self._control.stopping:
            if not self._wait_for_space():
                continue
            self.fetch()
            if self._version:
                if self.guarded_unroll():
                    each_unroll()
            else:
                self._row.beat(control_block.State.WAITING_FOR_DATA)
                time.sleep(0.005)

    def fetch(self) -> None:
        """Takes the newest parameters if there are newer ones.

        Straight into the network: a process holds one copy. A fetch that fails leaves
        none to act with, until one succeeds.
        """
        torn = self._store.torn
        version = self._store.fetch(self._parameters, newer_than=self._version)
        self._row.add("torn_reads", self._store.torn - torn)
        if version:
            self._version = max(0, version)
            self._row.add("fetches", 1)

    @torch.inference_mode()
    def unroll(self) -> bool:
        """Fills one slot and commits it, unless the run stops midway."""
        slot = self._slots[self._ring.open_index()]
        for stored, leaf in zip(slot.core_state, self._state, strict=True):
            stored.copy_(leaf)
        slot_rows.write(slot.time_step_arrays[0], self._time_step)
        for t in range(len(slot.outputs)):
            if self._control.stopping:
                return False
            self._step(slot, t)
        last = slot.time_step_arrays[-1]
        nest.map_structure(np.copyto, self._time_step, last)
        self._commit([self._environment])
        return True

    def _step(self, slot: slot_rows.SlotRows, t: int) -> None:
        row = self._row
        row.beat(control_block.State.RUNNING)
        start = time.perf_counter_ns()
        output, self._state = self._agent.step(
            slot.time_steps[t],
            self._state,
            epsilon=self._control.get("epsilon") ** self._epsilon_exponent,
            temperature=self._control.get("temperature"),
            generator=self._generator,
        )
        slot_rows.write_tensors(slot.outputs[t], output)
        slot.versions[t].fill(self._version)
        middle = time.perf_counter_ns()
        time_step, episode_end = self._environment.step(slot.actions[t])
        slot_rows.write(slot.time_step_arrays[t + 1], time_step)
        slot_rows.write(slot.episode_ends[t], episode_end)
        row.add("inference_ns", middle - start)
        row.add("environment_ns", time.perf_counter_ns() - middle)
        row.add("agent_steps", self._environment.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """All that the next unroll depends on, the parameters excepted."""
        return {
            "generator": self._generator.get_state(),
            "core_state": self._state,
            "time_step": nest.flatten(
                nest.map_structure(torch.from_numpy, self._time_step)
            ),
            "environment": self._environment.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._state = tuple(state["core_state"])
        for mine, saved in zip(
            nest.flatten(self._time_step), state["time_step"], strict=True
        ):
            np.copyto(mine, saved.numpy())
        self._environment.load_state_dict(state["environment"])


class ServedActor(_RingActor):
    """An actor whose actions come from the inference server.

    It steps two halves of its environments in turn, so that one is emulated while the
    other is inferred.
    """

    def __init__(
        self,
        halves: list[vector.VectorEnvironment],
        ring: trajectory_ring.TrajectoryRing,
        block: inference_block.InferenceBlock,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: Callable[[], list[int]],
    ) -> None:
        super().__init__(ring, control, row, index, incarnation, new_seeds)
        self._environments = halves
        self._seats, self._bell = block.seats(index), block.server_doorbell
        self._slots = [
            [slot_rows.of_slot(slot_rows.half(slot, h)) for h in range(len(halves))]
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

    def run(self, each_unroll: Callable[[], None] = lambda: None) -> None:
        """Acts until the run stops."""
        while not self._control.stopping:
            if self._wait_for_space() and self.guarded_unroll():
                each_unroll()

    def unroll(self) -> bool:
        """Fills one slot; False, and nothing committed, if it has to start over."""
        index = self._ring.open_index()
        halves = self._slots[index]
        for h, slot in enumerate(halves):
            slot_rows.write(slot.time_step_arrays[0], self._time_steps[h])
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
        """The version that acted; 0 if the run stops, START_OVER if it has to."""
        start = time.perf_counter_ns()
        version = self._seats[half].answer()
        while not version and not self._control.stopping:
            self._row.beat(control_block.State.WAITING_FOR_INFERENCE)
            self._ring.wait_to_be_woken(_WAIT_SECS)
            version = self._seats[half].answer()
        self._row.add("inference_ns", time.perf_counter_ns() - start)
        return version

    def _step(self, half: int, slot: slot_rows.SlotRows, t: int) -> None:
        row = self._row
        row.beat(control_block.State.RUNNING)
        start = time.perf_counter_ns()
        time_step, episode_end = self._environments[half].step(slot.actions[t])
        slot_rows.write(slot.time_step_arrays[t + 1], time_step)
        slot_rows.write(slot.episode_ends[t], episode_end)
        # Here and now, so that an unroll that starts over goes on from where it is.
        nest.map_structure(np.copyto, self._time_steps[half], time_step)
        row.add("environment_ns", time.perf_counter_ns() - start)
        row.add("agent_steps", self._environments[half].num_envs)
