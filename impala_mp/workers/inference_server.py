"""Inference server: one batched forward for the rows that actors wait for.

It reads time steps from the slots that the actors fill, and writes the agent's
output into the same rows. Core states stay on its device.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from impala_mp import nest, types
from impala_mp.algorithms import cuda
from impala_mp.config import schedules
from impala_mp.networks import agent, flat_parameters
from impala_mp.transport import (
    control_block,
    inference_requests,
    parameter_store,
    shared as shared_lib,
    trajectory_slot,
)

_WAIT_SECS = 0.1  # longest sleep between two looks at the control block
# An actor that takes longer for a row may hang. Newer parameters do not wait for it.
_GRACE_SECS = 1.0  # and
_PATIENCE = 4.0  # times the longest that this actor has taken lately
_KEPT = 0.99  # of the longest, after each row


class _Version:
    """Agent with one version of the parameters, on the server's device."""

    def __init__(
        self, policy: agent.Agent, store: parameter_store.ParameterStore, device: str
    ) -> None:
        policy.network.to(device)
        self.agent = policy
        self._flat = flat_parameters.FlatParameters(policy.network, device).flat
        on_cpu = self._flat.device.type == "cpu"
        self._host = self._flat
        if not on_cpu:
            kind = self._flat.dtype
            self._host = torch.empty(self._flat.shape, dtype=kind, pin_memory=True)
        self._reader = parameter_store.ParameterReader(store, self._host.numpy())

    @property
    def version(self) -> int:
        """Version of the parameters; 0: none to act with."""
        return self._reader.version

    def fetch(self) -> bool:
        """Copies the newest version to the device; returns whether it did."""
        fetched = self._reader.fetch()
        if fetched and self._host is not self._flat:
            self._flat.copy_(self._host)
        return fetched


class _Client:
    """Progress and core state of one seat of an actor."""

    def __init__(
        self,
        actor: int,
        seat: inference_requests.Seat,
        slots: list[types.Trajectory],
        row: control_block.ProcessRow,
        state: agent.CoreState,
        epsilon_exponents: list[float],
    ) -> None:
        self.actor = actor  # its number
        self.seat, self.control_row, self.state = seat, row, state
        self.epsilon_exponents = epsilon_exponents  # of its environments
        self.slots = [trajectory_slot.of_slot(slot) for slot in slots]
        self.policy: _Version | None = None  # of the current unroll
        self.version = 0  # that it began with
        self.incarnation = -1
        self.answered_at = time.monotonic()
        self.longest_secs = 0.0  # lately, from an answer to the unroll's next row

    def holds(self, policy: _Version) -> bool:
        """Returns whether the actor lives and will request more rows with `policy`.

        A late actor does not count. If it requests a row after all, its unroll starts
        over, and its limit grows.
        """
        row = self.control_row
        return (
            self.policy is policy
            and row.get("incarnation") == self.incarnation
            and row.state not in control_block.NOT_YET_RUNNING
            and not self._is_late()
        )

    def _is_late(self) -> bool:
        waited = time.monotonic() - self.answered_at
        limit = _GRACE_SECS + _PATIENCE * self.longest_secs
        return waited > limit and self.seat.pending() is None

    def begin(self, policy: _Version, incarnation: int) -> None:
        """Begins an unroll."""
        if incarnation != self.incarnation:
            self.longest_secs = 0.0
        self.policy, self.version = policy, policy.version
        self.incarnation = incarnation

    def goes_on(self, incarnation: int) -> bool:
        """Returns whether the next row can have the policy that began the unroll."""
        if self.policy is None or self.incarnation != incarnation:
            return False
        took = time.monotonic() - self.answered_at
        self.longest_secs = max(_KEPT * self.longest_secs, took)
        return self.version == self.policy.version


class _Work(NamedTuple):
    client: _Client
    request: inference_requests.Request

    @property
    def slot(self) -> trajectory_slot.SlotRows:
        return self.client.slots[self.request.slot]


class _PolicyServer:
    """Server of one policy, with two versions of its parameters.

    So no unroll sees two versions. Unrolls begin with the newer one. The older one is
    replaced once all unrolls that began with it are complete. Actors that seem to hang
    are not waited for.
    """

    def __init__(
        self, shared: shared_lib.Shared, actor_rows: Sequence[control_block.ProcessRow]
    ) -> None:
        config, store = shared.config, shared.store
        self._device = device = config.inference.device
        # The device can copy from the slots by itself.
        self._is_direct = device != "cpu" and cuda.pin(shared.rings.blocks)
        agents = [agent.make(config, shared.environment) for _ in range(2)]
        for each in agents:
            each.precision = config.inference.precision
        self._newer, self._older = (_Version(each, store, device) for each in agents)
        self._store, self._control = store, shared.control
        self._size = config.actors.environments // inference_requests.SEATS
        exponents = schedules.rungs(config.actors, len(actor_rows))
        self._on_a_ladder = config.actors.epsilon_ladder > 0.0
        self._clients = []
        for i, row in enumerate(actor_rows):
            slots = shared.rings.ring(i).slots
            for half, seat in enumerate(shared.inference.seats(i, shared.number)):
                own = exponents[i][half * self._size : (half + 1) * self._size]
                halves = [trajectory_slot.half(slot, half) for slot in slots]
                state = agents[0].initial_state(self._size, device)
                self._clients.append(_Client(i, seat, halves, row, state, own))

    def refresh(self) -> bool:
        """Fetches newer parameters if no unroll uses the older ones.

        Returns whether there are any to act with.
        """
        is_newer = self._store.latest > self._newer.version
        if is_newer and not self._is_needed() and self._older.fetch():
            self._newer, self._older = self._older, self._newer
        return self._newer.version > 0

    def _is_needed(self) -> bool:
        """Returns whether an unroll that began with the older version goes on."""
        return any(client.holds(self._older) for client in self._clients)

    def serve(self, generator: torch.Generator) -> list[int]:
        """Answers the pending requests; returns the actors that made them."""
        work = [
            _Work(client, request)
            for client in self._clients
            if (request := client.seat.pending())
        ]
        groups: dict[int, list[_Work]] = {}
        for each in work:
            if self._begin(each):
                groups.setdefault(id(each.client.policy), []).append(each)
        for group in groups.values():
            self._forward(group, generator)
        return [each.client.actor for each in work]

    def _begin(self, work: _Work) -> bool:
        """Assigns a version to an unroll; returns False if the row cannot be served."""
        client, request = work
        incarnation = client.control_row.get("incarnation")
        if request.row == 0:
            client.begin(self._newer, incarnation)
            for stored, leaf in zip(work.slot.core_state, client.state, strict=True):
                stored.copy_(leaf)
        elif not client.goes_on(incarnation):
            client.seat.reply(request, inference_requests.START_OVER)
            return False
        return True

    def _forward(self, group: list[_Work], generator: torch.Generator) -> None:
        policy = group[0].client.policy
        assert policy is not None
        rows = [work.slot.time_steps[work.request.row] for work in group]
        time_step = _concatenate(rows, self._device, self._is_direct)
        state = tuple(
            torch.cat(leaves)
            for leaves in zip(*(w.client.state for w in group), strict=True)
        )
        output, state = policy.agent.step(
            time_step,
            state,
            epsilon=self._epsilon(group),
            temperature=self._control.get("temperature"),
            generator=generator,
        )
        output = nest.map_structure(lambda leaf: leaf.cpu(), output)
        for i, work in enumerate(group):
            columns = slice(i * self._size, (i + 1) * self._size)
            client, request = work
            client.state = tuple(leaf[columns] for leaf in state)
            answer = nest.map_structure(lambda leaf, c=columns: leaf[c], output)
            trajectory_slot.write_tensors(work.slot.outputs[request.row], answer)
            work.slot.versions[request.row].fill(policy.version)
            client.answered_at = time.monotonic()
            client.seat.reply(request, policy.version)
            if request.row == len(work.slot.outputs) - 1:
                client.policy = None

    def _epsilon(self, group: list[_Work]) -> float | torch.Tensor:
        """Returns the current epsilon: one number, or float64 [N] on a ladder."""
        epsilon = self._control.get("epsilon")
        if not (epsilon and self._on_a_ladder):
            return epsilon
        each = [epsilon**x for work in group for x in work.client.epsilon_exponents]
        return torch.tensor(each, dtype=torch.float64, device=self._device)


class InferenceServer:
    """Server of all policies: it answers an actor once each of them has its rows."""

    def __init__(
        self,
        policies: Sequence[shared_lib.Shared],
        row: control_block.ProcessRow,
        seed: int,
    ) -> None:
        """`row` is the server's."""
        first = policies[0]
        actors = first.topology.actors
        actor_rows = [first.row(seat) for seat in actors]
        self._servers = [_PolicyServer(each, actor_rows) for each in policies]
        device = first.config.inference.device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._control, self._row = first.control, row
        self._bell = first.inference.server_doorbell
        # An actor waits at the doorbell of its first ring.
        self._rings = [first.rings.ring(seat.index) for seat in actors]

    def run(self) -> None:
        """Serves until the run stops."""
        while not self._control.stopping:
            if not self.refresh():
                self._row.beat(control_block.State.WAITING_FOR_DATA)
                self._bell.wait(0.005)
            elif self.serve():
                self._row.add("finished", 1)
            else:
                self._row.beat(control_block.State.WAITING_FOR_DATA)
                self._bell.wait(_WAIT_SECS)

    def refresh(self) -> bool:
        """Fetches newer parameters; returns whether every policy has some."""
        return all([each.refresh() for each in self._servers])

    @torch.inference_mode()
    def serve(self) -> int:
        """Answers the pending requests; returns their number."""
        self._row.beat(control_block.State.RUNNING)
        served = [i for each in self._servers for i in each.serve(self._generator)]
        for actor in dict.fromkeys(served):
            self._rings[actor].wake_actor()
        return len(served)


def _concatenate(
    rows: list[types.TimeStep], device: str, is_direct: bool
) -> types.TimeStep:
    """Returns rows of slots as one on the device; `is_direct`: large arrays singly."""

    def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        if is_direct and parts[0].nbytes >= cuda.LARGE:
            return torch.cat([part.to(device, non_blocking=True) for part in parts])
        return torch.cat(parts).to(device)

    leaves = [nest.flatten(row) for row in rows]
    merged = iter([joined(each) for each in zip(*leaves, strict=True)])
    return nest.map_structure(lambda leaf: next(merged), rows[0])
