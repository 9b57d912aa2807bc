"""Guests of an actor: frozen snapshots that play the other sides of its games.

They have no ring, so nothing is learned from their moves. A guest that has begun a game
ends it. At most two snapshots play at once: games begin with the newer guest, and the
next one is drawn when the last game of the older has ended.
"""

from typing import Any

import numpy as np
import torch

from impala_mp import nest, specs, types
from impala_mp.environments import league_games
from impala_mp.networks import agent, flat_parameters
from impala_mp.transport import control_block, league_memory

_ATTEMPTS = 8  # draws before the guest stays as it is


class _Guest:
    """One snapshot, in a network of its actor."""

    def __init__(self, policy: agent.Agent) -> None:
        self.agent = policy
        self.flat = flat_parameters.FlatParameters(policy.network).flat
        self.version = 0  # 0: the network holds no whole snapshot


class Guests:
    """The guests' columns of an actor, beside the parties of its policies."""

    def __init__(
        self,
        policies: tuple[agent.Agent, agent.Agent],
        memory: league_memory.LeagueMemory,
        environment: league_games.LeagueEnvironment,
        control: control_block.ControlBlock,
        epsilon_exponents: list[float],
        num_steps: int,
        generator: torch.Generator,
    ) -> None:
        """Takes two networks of the policy, and the memory of its league.

        Args:
          epsilon_exponents: places on the ladder of the policy's columns.
          num_steps: of an unroll.
          generator: draws the snapshots.
        """
        self._memory, self._environment, self._control = memory, environment, control
        self._guests = [_Guest(policy) for policy in policies]
        _, count = environment.num_columns
        # Both sides of a game explore alike.
        exponents = np.array(epsilon_exponents)[environment.own_columns_of_guests]
        self._exponents = exponents
        self._alike = bool((exponents == exponents[0]).all())
        self._num_steps, self._generator = num_steps, generator
        self._state = policies[0].initial_state(count)
        self._actions = specs.example_actions(environment.spec.action, count)
        self._time_step: types.TimeStep = None  # type: ignore[assignment]
        games = environment.num_with_guests
        self._newer = 0  # index of the guest that games begin with
        self._of_game = np.zeros(games, np.int64)  # index of the guest of each game
        self._waits = np.ones(games, bool)  # has begun, and has no guest yet

    def reset(self, first: types.TimeStep) -> None:
        """Begins at the first row of all games."""
        self._time_step = nest.map_structure(np.array, first)
        self._waits[:] = True

    def fetch(self, row: control_block.ProcessRow) -> None:
        """Draws the first guest; later ones are drawn when games begin."""
        if not self.is_ready:
            self._draw()

    @property
    def is_ready(self) -> bool:
        """True if there is a guest. The learner takes the first snapshot."""
        return self._guests[self._newer].version > 0

    def begin(self) -> int:
        """Returns the number of steps of an unroll."""
        return self._num_steps

    def act(self, t: int, generator: torch.Generator) -> types.Nest:
        """Returns the actions of all guests, arrays."""
        if self._waits.any():
            self._seat()
        of_column = np.repeat(self._of_game, self._environment.guests_a_game)
        # What a guest without a memory sees while it waits, it need not look at.
        looks = self._time_step.acts | bool(self._state)
        for index in (0, 1):
            columns = np.flatnonzero((of_column == index) & looks)
            if len(columns):
                self._act(self._guests[index].agent, columns, generator)
        return self._actions

    def _act(
        self, policy: agent.Agent, columns: np.ndarray, generator: torch.Generator
    ) -> None:
        """Acts in some of the guests' columns."""
        all_of_them = len(columns) == len(self._exponents)
        places = torch.from_numpy(columns)
        rows = nest.map_structure(
            lambda leaf: torch.from_numpy(leaf if all_of_them else leaf[columns]),
            self._time_step,
        )
        output, state = policy.step(
            rows,
            tuple(leaf[places] for leaf in self._state),
            epsilon=self._epsilon(columns),
            temperature=self._control.get("temperature"),
            generator=generator,
        )
        for mine, new in zip(
            nest.flatten(self._actions), nest.flatten(output.action), strict=True
        ):
            mine[columns] = new.numpy()
        for stored, leaf in zip(self._state, state, strict=True):
            stored[places] = leaf

    def _epsilon(self, columns: np.ndarray) -> float | torch.Tensor:
        epsilon = self._control.get("epsilon")
        if self._alike:
            return float(epsilon ** self._exponents[0])
        return torch.from_numpy(epsilon ** self._exponents[columns])

    def note(self, t: int, time_step: types.TimeStep, end: types.EpisodeEnd) -> None:
        """Takes the next row of the guests' columns."""
        nest.map_structure(np.copyto, self._time_step, time_step)
        self._waits |= self._environment.begun

    def finish(self) -> None:
        """Ends an unroll. Nothing is left to do."""

    # Who plays.

    def _seat(self) -> None:
        """Gives each game that has just begun its guest."""
        older = self._of_game[~self._waits] != self._newer
        if not older.any():
            self._draw()
        self._of_game[self._waits] = self._newer
        version = self._guests[self._newer].version
        self._environment.seat(self._waits, version)
        self._waits[:] = False

    def _draw(self) -> None:
        """Draws the snapshot with which games begin from now on.

        The one that was the newer may still end its games.
        """
        for _ in range(_ATTEMPTS):
            entries = self._memory.entries()
            if not entries:
                return
            entry = self._choose(entries)
            if entry.version == self._guests[self._newer].version:
                return
            index = 1 - self._newer
            guest = self._guests[index]
            guest.version = 0
            if self._memory.read(entry, guest.flat.numpy()):
                guest.version, self._newer = entry.version, index
                return

    def _choose(self, entries: list[league_memory.Entry]) -> league_memory.Entry:
        sums = np.cumsum([entry.weight for entry in entries])
        drawn = torch.rand((), generator=self._generator, dtype=torch.float64).item()
        index = int(np.searchsorted(sums, drawn * sums[-1], side="right"))
        return entries[min(index, len(entries) - 1)]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that the next unroll depends on.

        The parameters are in it: the league may have dropped a snapshot that plays.
        """
        return {
            "core_state": self._state,
            "time_step": nest.flatten(
                nest.map_structure(torch.from_numpy, self._time_step)
            ),
            "parameters": [guest.flat.clone() for guest in self._guests],
            "versions": [guest.version for guest in self._guests],
            "newer": self._newer,
            "of_game": torch.from_numpy(self._of_game),
            "waits": torch.from_numpy(self._waits),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = tuple(leaf.clone() for leaf in state["core_state"])
        for mine, saved in zip(
            nest.flatten(self._time_step), state["time_step"], strict=True
        ):
            np.copyto(mine, saved.numpy())
        for guest, flat, version in zip(
            self._guests, state["parameters"], state["versions"], strict=True
        ):
            guest.flat.copy_(flat)
            guest.version = version
        self._newer = state["newer"]
        np.copyto(self._of_game, state["of_game"].numpy())
        np.copyto(self._waits, state["waits"].numpy())
