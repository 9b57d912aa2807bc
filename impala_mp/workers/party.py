"""One policy's share of an actor: a ring, and the network that fills it."""

from typing import Any

import numpy as np
import torch

from impala_mp import nest, types
from impala_mp.networks import agent, flat_parameters
from impala_mp.transport import (
    control_block,
    parameter_store,
    trajectory_ring,
    trajectory_slot,
)


class RingWriter:
    """The actor's side of one ring."""

    def __init__(self, ring: trajectory_ring.TrajectoryRing) -> None:
        self.ring = ring
        self._has_numbers = False

    def write_end(self, row: types.EpisodeEnd, t: int, end: types.EpisodeEnd) -> None:
        """Writes row `t` of the open slot; the user's numbers where a game ends."""
        row.episode_return[...] = end.episode_return
        row.episode_length[...] = end.episode_length
        if row.game:
            trajectory_slot.write(row.game, end.game)
        if end.numbers is None:
            return
        if not self._has_numbers:  # rows before have none, and were left unwritten
            slot = self.ring.slots[self.ring.open_index()]
            slot.episode_end.numbers[: t + 1] = np.nan
            self._has_numbers = True
        over = ~np.isnan(end.episode_return)
        row.numbers[over] = end.numbers[over]

    def commit(self, index: int, incarnation: int, unroll: int) -> None:
        """Announces the open slot, as the `unroll`-th of this actor."""
        self.ring.commit(index, incarnation, self._has_numbers, unroll)


class Party(RingWriter):
    """One policy in an actor, with its own copy of the parameters."""

    def __init__(
        self,
        policy: agent.Agent,
        ring: trajectory_ring.TrajectoryRing,
        store: parameter_store.ParameterStore,
        control: control_block.ControlBlock,
        num_columns: int,
        epsilon_exponents: list[float],
    ) -> None:
        """Takes the policy's network and memory.

        Args:
          control: with the policy's live values.
          num_columns: that it plays in this actor.
          epsilon_exponents: their places on the ladder.
        """
        super().__init__(ring)
        self._agent, self._control, self._num_columns = policy, control, num_columns
        first, *others = epsilon_exponents
        several = any(other != first for other in others)
        self._exponents = np.array(epsilon_exponents) if several else first
        # Straight into the network: a process holds one copy.
        flat = flat_parameters.FlatParameters(policy.network).flat.numpy()
        self.parameters = parameter_store.ParameterReader(store, flat)
        self._slots = [trajectory_slot.of_slot(slot) for slot in ring.slots]
        self._slot = self._slots[0]
        self._state = policy.initial_state(num_columns)
        self.time_step: types.TimeStep = None  # type: ignore[assignment]

    def reset(self, first: types.TimeStep) -> None:
        """Begins at the first row of its columns, without a core state."""
        self.time_step = nest.map_structure(np.array, first)
        self._state = self._agent.initial_state(self._num_columns)

    def fetch(self, row: control_block.ProcessRow) -> None:
        """Copies the newest parameters into the network, if there are newer ones."""
        reader = self.parameters
        fetches, torn = reader.num_fetches, reader.num_torn
        reader.fetch()
        row.add("fetches", reader.num_fetches - fetches)
        row.add("torn_reads", reader.num_torn - torn)

    @property
    def is_ready(self) -> bool:
        """True if the network holds a whole version."""
        return self.parameters.version > 0

    def begin(self) -> int:
        """Opens a slot with the core state and row 0; returns its number of steps."""
        self._slot = slot = self._slots[self.ring.open_index()]
        for stored, leaf in zip(slot.core_state, self._state, strict=True):
            stored.copy_(leaf)
        trajectory_slot.write(slot.time_step_arrays[0], self.time_step)
        return len(slot.outputs)

    def act(self, t: int, generator: torch.Generator) -> types.Nest:
        """Writes what the policy does in row `t`; returns its actions, arrays."""
        slot = self._slot
        output, self._state = self._agent.step(
            slot.time_steps[t],
            self._state,
            epsilon=self._epsilon(),
            temperature=self._control.get("temperature"),
            generator=generator,
        )
        trajectory_slot.write_tensors(slot.outputs[t], output)
        slot.versions[t].fill(self.parameters.version)
        return slot.actions[t]

    def note(self, t: int, time_step: types.TimeStep, end: types.EpisodeEnd) -> None:
        """Writes what came of row `t`."""
        trajectory_slot.write(self._slot.time_step_arrays[t + 1], time_step)
        self.write_end(self._slot.episode_ends[t], t, end)

    def finish(self) -> None:
        """Keeps the last row, with which the next slot begins."""
        last = self._slot.time_step_arrays[-1]
        nest.map_structure(np.copyto, self.time_step, last)

    def _epsilon(self) -> float | torch.Tensor:
        """Returns the present epsilon; float64 [E] on a ladder over environments."""
        epsilon = self._control.get("epsilon")
        if not epsilon:
            return 0.0
        each = epsilon**self._exponents
        return torch.from_numpy(each) if isinstance(each, np.ndarray) else each

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that the next unroll depends on, without the parameters."""
        return {
            "core_state": self._state,
            "time_step": nest.flatten(
                nest.map_structure(torch.from_numpy, self.time_step)
            ),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = tuple(state["core_state"])
        for mine, saved in zip(
            nest.flatten(self.time_step), state["time_step"], strict=True
        ):
            np.copyto(mine, saved.numpy())
