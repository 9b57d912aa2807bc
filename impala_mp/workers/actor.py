"""Actor: steps E environments with fixed policies an unroll, straight into slots."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from impala_mp import seeding
from impala_mp.environments import bad_data, episode_numbers, vector
from impala_mp.transport import control_block, name_tables
from impala_mp.workers import guests as guests_lib, party as party_lib

# Of the number of an unroll; the run follows, modulo 512. Lives of an actor on a host
# are 1,000 times the host's.
_UNROLL_BITS, _INCARNATION_BITS, _RUNS = 32, 22, 2**9
_MAX_BAD_IN_A_ROW = 100  # unrolls; then the actor fails
WAIT_SECS = 0.2  # longest sleep between two looks at the control block


class RingActor:
    """Base of all actors: fills slots of the rings of its policies, one of each."""

    def __init__(
        self,
        writers: Sequence[party_lib.RingWriter],
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: Callable[[], list[int]],
        numbers: episode_numbers.EpisodeNumbers,
        run: int = 0,
    ) -> None:
        """`numbers` are those of all its environments; `run` is that of the folder."""
        self._writers, self._control, self._row = writers, control, row
        self._numbers = numbers
        self._index, self._incarnation = index, incarnation
        # Grows with each attempt. No other incarnation or run has the same.
        life = ((run % _RUNS) << _INCARNATION_BITS) + incarnation % 2**_INCARNATION_BITS
        self._unroll = life << _UNROLL_BITS
        self._new_seeds = new_seeds  # for the environments; new ones at each call
        self._bad_in_a_row = 0
        self._num_outside = 0  # observations that the row counts already

    def reset(self) -> None:
        """Resets the environments and the state that depends on them."""
        raise NotImplementedError

    def unroll(self) -> bool:
        """Fills one slot of each ring; commits them, or returns False if it cannot."""
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
        for writer in self._writers:
            writer.commit(self._index, self._incarnation, self._unroll)
        self._row.add("finished", 1)
        outside = sum(each.num_outside for each in environments)
        self._row.add("observations_outside", outside - self._num_outside)
        self._num_outside = outside

    def publish_names(self, table: name_tables.NameTable) -> None:
        """Takes the columns of the user's numbers from `table`, and adds new ones."""
        self._numbers.follow(table.names(), table.append)

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

    def has_space(self) -> bool:
        """Returns whether each ring has a free slot."""
        return all(writer.ring.has_space() for writer in self._writers)

    def _wait_for_space(self) -> bool:
        """Waits a moment for a free slot of each ring; returns whether there is one."""
        if self.has_space():
            return True
        self._row.beat(control_block.State.WAITING_FOR_SLOT)
        start = time.perf_counter_ns()
        # One after the other: no unroll begins before the last of them has space.
        for writer in self._writers:
            if not writer.ring.wait_for_space(WAIT_SECS):
                break
        self._row.add("wait_ns", time.perf_counter_ns() - start)
        return self.has_space()


class Actor(RingActor):
    """Actor that infers for itself, with its own copies of the parameters."""

    _new_seeds: seeding.EnvironmentSeeds

    def __init__(
        self,
        parties: Sequence[party_lib.Party],
        environment: vector.VectorEnvironment,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        index: int,
        incarnation: int,
        new_seeds: seeding.EnvironmentSeeds,
        generator: torch.Generator,
        run: int = 0,
        guests: guests_lib.Guests | None = None,
    ) -> None:
        """`parties` are those of the policies that play the environment.

        With a league there is a single policy, and `guests` play the other columns.
        """
        numbers = environment.numbers
        super().__init__(
            parties, control, row, index, incarnation, new_seeds, numbers, run
        )
        self.parties: list[party_lib.Party | guests_lib.Guests] = [*parties]
        if guests is not None:
            self.parties.append(guests)
        self._environment = environment
        self._generator = generator

    def reset(self) -> None:
        first = self._environment.split(self._environment.reset(self._new_seeds()))
        for party, time_step in zip(self.parties, first, strict=True):
            party.reset(time_step)

    def close(self) -> None:
        self._environment.close()

    def run(self, each_unroll: Callable[[], None] = lambda: None) -> None:
        """Acts until the run stops."""
        while not self._control.stopping:
            if not self._wait_for_space():
                continue
            self.fetch()
            if all(party.is_ready for party in self.parties):
                if self.guarded_unroll():
                    each_unroll()
            else:
                self._row.beat(control_block.State.WAITING_FOR_DATA)
                time.sleep(0.005)

    def fetch(self) -> None:
        """Copies the newest parameters into the networks."""
        for party in self.parties:
            party.fetch(self._row)

    @torch.inference_mode()
    def unroll(self) -> bool:
        """Fills and commits a slot of each ring, unless the run stops midway."""
        num_steps = min([party.begin() for party in self.parties])
        for t in range(num_steps):
            if self._control.stopping:
                return False
            self._step(t)
        for party in self.parties:
            party.finish()
        self._commit([self._environment])
        return True

    def _step(self, t: int) -> None:
        row, environment = self._row, self._environment
        row.beat(control_block.State.RUNNING)
        start = time.perf_counter_ns()
        actions = [party.act(t, self._generator) for party in self.parties]
        middle = time.perf_counter_ns()
        time_step, end = environment.step(actions[0] if len(actions) == 1 else actions)
        for party, own, its_end in zip(
            self.parties,
            environment.split(time_step),
            environment.split_end(end),
            strict=True,
        ):
            party.note(t, own, its_end)
        row.add("inference_ns", middle - start)
        row.add("environment_ns", time.perf_counter_ns() - middle)
        row.add("agent_steps", environment.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that the next unroll depends on, without the parameters."""
        return {
            "unroll": self._unroll,
            "seeds": self._new_seeds.state_dict(),
            "generator": self._generator.get_state(),
            "parties": [party.state_dict() for party in self.parties],
            "environment": self._environment.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Older checkpoints lack the first two.
        self._unroll = state.get("unroll", self._unroll)
        if "seeds" in state:
            self._new_seeds.load_state_dict(state["seeds"])
        self._generator.set_state(state["generator"])
        saved = state.get("parties", [state])  # older checkpoints have a single one
        for party, own in zip(self.parties, saved, strict=True):
            party.load_state_dict(own)
        self._environment.load_state_dict(state["environment"])
