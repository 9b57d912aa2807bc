"""Actor: steps E environments with one policy an unroll, straight into a slot."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from impala_mp import nest, types
from impala_mp.environments import bad_data, episode_numbers, vector
from impala_mp.networks import agent, flat_parameters
from impala_mp.transport import (
    control_block,
    name_tables,
    parameter_store,
    trajectory_ring,
    trajectory_slot,
)

_UNROLL_BITS, _INCARNATION_BITS = 32, 16  # of the number of an unroll; then the run
_MAX_BAD_IN_A_ROW = 100  # unrolls; then the actor fails
WAIT_SECS = 0.2  # longest sleep between two looks at the control block


class RingActor:
    """Base of all actors: fills the slots of one ring."""

    def __init__(
        self,
        ring: trajectory_ring.TrajectoryRing,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: Callable[[], list[int]],
        numbers: episode_numbers.EpisodeNumbers,
        run: int = 0,
    ) -> None:
        """`numbers` are those of all its environments; `run` is that of the folder."""
        self._ring, self._control, self._row = ring, control, row
        self._numbers, self._has_numbers = numbers, False
        self._index, self._incarnation = index, incarnation
        # Grows with each attempt. No other incarnation or run has the same.
        self._unroll = ((run << _INCARNATION_BITS) + incarnation) << _UNROLL_BITS
        self._new_seeds = new_seeds  # for the environments; new ones at each call
        self._bad_in_a_row = 0
        self._num_outside = 0  # observations that the row counts already

    def reset(self) -> None:
        """Resets the environments and the state that depends on them."""
        raise NotImplementedError

    def unroll(self) -> bool:
        """Fills one slot and commits it; returns False if it could not."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the environments."""
        raise NotImplementedError

    def guarded_unroll(self) -> bool:
        """Unrolls; discards the unroll if the environment returns bad data."""
        self._unroll += 1
        try:
            done = self.unroll()
        except bad_data.BadData as error:
            self._start_over(error)
            return False
        self._bad_in_a_row = 0
        return done

    def _commit(self, environments: list[vector.VectorEnvironment]) -> None:
        self._ring.commit(
            self._index, self._incarnation, self._has_numbers, self._unroll
        )
        self._row.add("finished", 1)
        outside = sum(each.num_outside for each in environments)
        self._row.add("observations_outside", outside - self._num_outside)
        self._num_outside = outside

    def publish_names(self, table: name_tables.NameTable) -> None:
        """Takes the columns of the user's numbers from `table`, and adds new ones."""
        self._numbers.follow(table.names(), table.append)

    def _write_end(self, row: types.EpisodeEnd, t: int, end: types.EpisodeEnd) -> None:
        """Writes row `t` of the open slot; the user's numbers where a game ends."""
        row.episode_return[...] = end.episode_return
        row.episode_length[...] = end.episode_length
        if end.numbers is None:
            return
        if not self._has_numbers:  # rows before have none, and were left unwritten
            slot = self._ring.slots[self._ring.open_index()]
            slot.episode_end.numbers[: t + 1] = np.nan
            self._has_numbers = True
        over = ~np.isnan(end.episode_return)
        row.numbers[over] = end.numbers[over]

    def _start_over(self, error: bad_data.BadData) -> None:
        """Counts a discarded unroll and resets. The reset may return bad data, too."""
        bad: bad_data.BadData | None = error
        while bad is not None:
            print(f"An unroll is discarded: {bad}.", flush=True)
            self._row.add(bad.counter, 1)
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= _MAX_BAD_IN_A_ROW:
                raise bad
            try:
                self.reset()
                bad = None
            except bad_data.BadData as again:
                bad = again

    def _wait_for_space(self) -> bool:
        if self._ring.has_space():
            return True
        self._row.beat(control_block.State.WAITING_FOR_SLOT)
        start = time.perf_counter_ns()
        there_is = self._ring.wait_for_space(WAIT_SECS)
        self._row.add("wait_ns", time.perf_counter_ns() - start)
        return there_is


class Actor(RingActor):
    """Actor that infers for itself, with its own copy of the parameters."""

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
        epsilon_exponents: list[float],
        run: int = 0,
    ) -> None:
        """`epsilon_exponents` are the places of its environments on the ladder."""
        numbers = environment.numbers
        super().__init__(
            ring, control, row, index, incarnation, new_seeds, numbers, run
        )
        self._agent, self._environment = policy, environment
        self._generator = generator
        first, *others = epsilon_exponents
        several = any(other != first for other in others)
        self._exponents = np.array(epsilon_exponents) if several else first
        # Straight into the network: a process holds one copy.
        flat = flat_parameters.FlatParameters(policy.network).flat.numpy()
        self.parameters = parameter_store.ParameterReader(store, flat)
        self._slots = [trajectory_slot.of_slot(slot) for slot in ring.slots]
        self._state = policy.initial_state(environment.num_envs)
        self._time_step: types.TimeStep = None  # type: ignore[assignment]

    def reset(self) -> None:
        first = self._environment.reset(self._new_seeds())
        self._time_step = nest.map_structure(np.array, first)
        self._state = self._agent.initial_state(self._environment.num_envs)

    def close(self) -> None:
        self._environment.close()

    def run(self, each_unroll: Callable[[], None] = lambda: None) -> None:
        """Acts until the run stops."""
        while not self._control.stopping:
            if not self._wait_for_space():
                continue
            self.fetch()
            if self.parameters.version:
                if self.guarded_unroll():
                    each_unroll()
            else:
                self._row.beat(control_block.State.WAITING_FOR_DATA)
                time.sleep(0.005)

    def fetch(self) -> None:
        """Copies the newest parameters into the network, if there are newer ones."""
        reader = self.parameters
        fetches, torn = reader.num_fetches, reader.num_torn
        reader.fetch()
        self._row.add("fetches", reader.num_fetches - fetches)
        self._row.add("torn_reads", reader.num_torn - torn)

    @torch.inference_mode()
    def unroll(self) -> bool:
        """Fills one slot and commits it, unless the run stops midway."""
        slot = self._slots[self._ring.open_index()]
        for stored, leaf in zip(slot.core_state, self._state, strict=True):
            stored.copy_(leaf)
        trajectory_slot.write(slot.time_step_arrays[0], self._time_step)
        for t in range(len(slot.outputs)):
            if self._control.stopping:
                return False
            self._step(slot, t)
        last = slot.time_step_arrays[-1]
        nest.map_structure(np.copyto, self._time_step, last)
        self._commit([self._environment])
        return True

    def _step(self, slot: trajectory_slot.SlotRows, t: int) -> None:
        row = self._row
        row.beat(control_block.State.RUNNING)
        start = time.perf_counter_ns()
        output, self._state = self._agent.step(
            slot.time_steps[t],
            self._state,
            epsilon=self._epsilon(),
            temperature=self._control.get("temperature"),
            generator=self._generator,
        )
        trajectory_slot.write_tensors(slot.outputs[t], output)
        slot.versions[t].fill(self.parameters.version)
        middle = time.perf_counter_ns()
        time_step, episode_end = self._environment.step(slot.actions[t])
        trajectory_slot.write(slot.time_step_arrays[t + 1], time_step)
        self._write_end(slot.episode_ends[t], t, episode_end)
        row.add("inference_ns", middle - start)
        row.add("environment_ns", time.perf_counter_ns() - middle)
        row.add("agent_steps", self._environment.num_envs)

    def _epsilon(self) -> float | torch.Tensor:
        """Returns the present epsilon; float64 [E] on a ladder over environments."""
        epsilon = self._control.get("epsilon") ** self._exponents
        return torch.from_numpy(epsilon) if isinstance(epsilon, np.ndarray) else epsilon

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that the next unroll depends on, without the parameters."""
        return {
            "unroll": self._unroll,
            "generator": self._generator.get_state(),
            "core_state": self._state,
            "time_step": nest.flatten(
                nest.map_structure(torch.from_numpy, self._time_step)
            ),
            "environment": self._environment.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._unroll = state.get("unroll", self._unroll)  # not in older checkpoints
        self._generator.set_state(state["generator"])
        self._state = tuple(state["core_state"])
        for mine, saved in zip(
            nest.flatten(self._time_step), state["time_step"], strict=True
        ):
            np.copyto(mine, saved.numpy())
        self._environment.load_state_dict(state["environment"])
