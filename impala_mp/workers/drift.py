"""Recomputes an actor's logits in the learner, with the parameters that acted.

A difference beyond rounding means that recurrent state, preprocessing or precision
differs between the two. V-trace would correct for a policy lag that does not exist.
"""

import itertools
import math
from typing import Any, NamedTuple

import torch

from impala_mp import nest, types
from impala_mp.networks import flat_parameters
from impala_mp.transport import control_block
from impala_mp.workers import batcher, learner


class _Tolerance(NamedTuple):
    """Largest differences that rounding explains."""

    log_probs: float  # nats; relative where they are above 1
    layers: float  # likewise, relative to the spread of a layer's outputs


# By the precision of the learner's network; a GPU rounds float32 to TF32.
# Measured in bfloat16: up to 0.06 and 0.07, in the deep network with an LSTM.
_TOLERANCES = {
    "float32": _Tolerance(2e-3, 1e-3),
    "tf32": _Tolerance(5e-2, 1e-2),
    "bfloat16": _Tolerance(0.15, 0.15),
}


def _tolerance(precisions: set[str], devices: set[str]) -> _Tolerance:
    """Returns that of the coarsest precision of those that learn and act."""
    if "bfloat16" in precisions:
        return _TOLERANCES["bfloat16"]
    on_a_gpu = any(device.startswith("cuda") for device in devices)
    return _TOLERANCES["tf32" if on_a_gpu else "float32"]


class DriftDetector:
    """Check of one trajectory per interval; `worst` is the newest difference."""

    def __init__(
        self,
        the_learner: learner.Learner,
        published: torch.Tensor,
        interval: int,
        control: control_block.ControlBlock,
        epsilon_exponents: list[list[float]],
    ) -> None:
        """`interval` is in updates; 0 never checks. Exponents: [actor][environment].

        `published` is the buffer whose values are published: the learner's, or an
        older one.
        """
        self._learner, self._agent = the_learner, the_learner.agent
        self._flat, self._interval = the_learner.parameters, interval
        self._tolerance = _tolerance(the_learner.precisions, the_learner.devices)
        self._published = published
        self._control, self._exponents = control, epsilon_exponents
        self._behaviour = _Behaviour(control)
        self._snapshot = torch.empty_like(published) if interval else None
        self._version = 0  # of the snapshot; 0 while there is none
        self._next = 1
        self._checks = 0
        self._misses = 0  # since the last check
        self.worst = math.nan
        self.alarms = 0

    def published(self, version: int, updates: int) -> None:
        """Keeps the published parameters if a check is due.

        Called after scheduled values have changed, and before actors use them.
        """
        if self._version:
            self._behaviour.note(self._control)
        if self._interval and not self._version and updates >= self._next:
            assert self._snapshot is not None
            self._snapshot.copy_(self._published)
            self._behaviour = _Behaviour(self._control)
            self._version = version
            self._next = updates + self._interval

    def look(self, batch: batcher.Batch) -> str:
        """Checks the batch, if the snapshot acted in it; "" or an alarm."""
        versions = batch.parameter_version[:, : batch.num_fresh]
        if not self._version or versions.max() < self._version:
            return ""
        columns = (versions == self._version).all(0).nonzero()[0]
        self._version = 0
        if not len(columns) or not self._behaviour.is_known(self._control):
            # No trajectory of this version, or an unknown epsilon. With replay.reuse
            # actors fetch every so many updates: each try begins one update later.
            self._misses += 1
            self._next = self._learner.updates + self._misses
            return ""
        column = int(columns[self._checks % len(columns)])  # each in turn
        self._checks += 1
        self._misses = 0
        device = self._flat.flat.device
        devices = [device] if device.type == "cuda" else []
        # A resumed run checks at another update; its random numbers must not change.
        with self._acting_parameters(), torch.random.fork_rng(devices):
            header = batch.header
            exponent = self._exponents[header.actor[column]][header.column[column]]
            difference, row, layer = self._compare(batch.trajectory, column, exponent)
        self.worst = difference
        if difference <= self._tolerance.log_probs:
            return ""
        self.alarms += 1
        return (
            f"Drift: the learner's log-probabilities differ by {difference:.3g}"
            f" max(1, |log mu|) nats from the actor's (row {row} of actor"
            f" {header.actor[column]}, sequence {header.sequence[column]}, same"
            f" parameters). First difference: {layer}."
        )

    def _acting_parameters(self) -> "_Swapped":
        assert self._snapshot is not None
        return _Swapped(self._flat, self._snapshot)

    @torch.no_grad()
    def _compare(
        self, batch: types.Trajectory, column: int, exponent: float
    ) -> tuple[float, int, str]:
        """Returns (largest difference, its row, the layer that differs first)."""
        one = _column(batch, column, self._flat.flat.device)
        unrolled: dict[str, list[torch.Tensor]] = {}
        with _Watched(self._agent.network, unrolled):
            output = self._learner.unroll(one)
        each = []
        for epsilon, temperature in self._behaviour.candidates():
            differences = self._agent.differences(
                output, one.agent_output, epsilon**exponent, temperature
            )
            each.append(differences.amax(1))
        rows = torch.stack(each).amin(0)
        worst = rows.max().item()
        row = int(rows.argmax())
        return worst, row, self._layer(one, unrolled)

    def _layer(self, one: types.Trajectory, unrolled: dict[str, Any]) -> str:
        """Returns the first layer where steps, as in actors, differ from an unroll."""
        stepped: dict[str, list[torch.Tensor]] = {}
        state, network = one.core_state, self._agent.network
        with _Watched(network, stepped):
            for t in range(one.shape[0]):
                row, action = nest.map_structure(
                    lambda leaf, t=t: leaf[t], (one.time_step, one.agent_output.action)
                )
                _, state = self._agent.step(row, state)
                state = self._agent.replace_action(state, action)
        for name, outputs in stepped.items():
            whole = torch.cat([x.flatten(0, -2) for x in unrolled.get(name, [])])
            parts = torch.cat([x.flatten(0, -2) for x in outputs])
            shared = min(len(whole), len(parts))
            apart = (parts[:shared] - parts[:shared].mean(0)).abs().max()
            limit = self._tolerance.layers * apart.clamp(min=1.0)
            if (whole[:shared] - parts[:shared]).abs().max() > limit:
                return name
        return "none of the layers; the actor's inputs or records differ"


class _Behaviour:
    """Possible values of epsilon and temperature since its creation.

    The learner knows the values of its schedules. A change by impala-ctl comes at any
    time; the values are known only if there was none.
    """

    def __init__(self, control: control_block.ControlBlock) -> None:
        self._num_changes = control.num_changes
        self._epsilons: set[float] = set()
        self._temperatures: set[float] = set()
        self.note(control)

    def note(self, control: control_block.ControlBlock) -> None:
        """Adds the current values."""
        self._epsilons.add(control.get("epsilon"))
        self._temperatures.add(control.get("temperature"))

    def is_known(self, control: control_block.ControlBlock) -> bool:
        changes = self._num_changes
        return changes % 2 == 0 and control.num_changes == changes

    def candidates(self) -> list[tuple[float, float]]:
        """Returns all pairs, because actors read each value separately."""
        return list(itertools.product(self._epsilons, self._temperatures))


class _Swapped:
    """Context with other parameters in place."""

    def __init__(
        self, flat: flat_parameters.FlatParameters, other: torch.Tensor
    ) -> None:
        self._flat, self._other = flat, other

    def __enter__(self) -> None:
        self._kept = self._flat.flat.clone()
        self._flat.flat.copy_(self._other)

    def __exit__(self, *unused: object) -> None:
        self._flat.flat.copy_(self._kept)


class _Watched:
    """Context that collects the outputs of a network's layers, in execution order."""

    def __init__(self, network: torch.nn.Module, into: dict[str, Any]) -> None:
        self._network, self._into = network, into

    def __enter__(self) -> None:
        self._hooks = [
            module.register_forward_hook(self._keep(name))
            for name, module in self._network.named_modules()
            if name and not list(module.children())
        ]

    def _keep(self, name: str) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.dim() >= 2:
                self._into.setdefault(name, []).append(output.clone())

        return keep

    def __exit__(self, *unused: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _column(
    batch: types.Trajectory, column: int, device: torch.device
) -> types.Trajectory:
    """Returns one trajectory of a batch, B = 1, on `device`.

    On its way into the replay a trajectory is in the memory of the host.
    """
    time_step, agent_output = nest.map_structure(
        lambda leaf: leaf[:, column : column + 1].to(device),
        (batch.time_step, batch.agent_output),
    )
    core_state = (leaf[column : column + 1].to(device) for leaf in batch.core_state)
    return batch._replace(
        time_step=time_step,
        agent_output=agent_output,
        core_state=tuple(core_state),
        before=(),
    )
