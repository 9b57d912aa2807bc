"""Contract of learner and algorithm: a batch in, a loss and its metrics out.

The calls run from the learner to the algorithm and back into the learner. `references`
and `loss` get `unroll`, a function of the learner, and call it on the batch:

    learner._step -> algorithm.loss -> learner.unroll -> agent.unroll

The callback keeps precision in one place. The learner knows in what precision the
network computes, and casts its outputs to float32; an algorithm sees float32 only. An
algorithm decides how often and with which parameters the network runs: `references`
runs it with those of a target network.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from impala_mp import types
from impala_mp.config import live_hyperparameters


class Live(NamedTuple):
    """Hyperparameters that may change between updates.

    On the host they are numbers. An algorithm gets scalars on the learner's device, so
    that a graph of the update reads their present values.
    """

    entropy_cost: Any
    learning_rate_factor: Any  # multiplies the schedule's value
    clip_rho_threshold: Any
    clip_pg_rho_threshold: Any
    clip_c_threshold: Any


def live_from_config(config: Any) -> Live:
    """Returns the values at the start of a run of `config`."""
    values = live_hyperparameters.of_config(config).initial()
    return Live(*(values[name] for name in Live._fields))


class Loss(NamedTuple):
    """Result for one micro-batch; scalars are summed over those of a batch."""

    total: torch.Tensor  # a scalar, to be differentiated
    metrics: dict[str, torch.Tensor]  # scalars without a gradient, by metric name
    elements: dict[str, torch.Tensor]  # [T, B] parts of the scalars, as computed
    moments: torch.Tensor | None  # of value targets, [tasks, 3]; None without PopArt
    priorities: torch.Tensor | None = None  # [B] of this micro-batch, for the replay


# Outputs of the network for a batch, in float32: the nest that the agent's `unroll`
# returns, of tensors [T+1, B, ...]. For actor-critic it is agent.NetworkOutput.
Unroll = Callable[[types.Trajectory], types.Nest]


# Returns the tensors of all learner ranks, by rank: [ranks, *shape].
Gather = Callable[[torch.Tensor], torch.Tensor]


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """Gathers from a single learner."""
    return tensor.unsqueeze(0)


class Algorithm(Protocol):
    """The algorithm that `config.algorithm` names."""

    metric_names: tuple[str, ...]
    state: dict[str, torch.Tensor]  # beside the parameters; changed in place

    def references(
        self, batches: list[types.Trajectory], unroll: Unroll, live: Live
    ) -> list[Any]:
        """Returns what all passes over a micro-batch share, for each micro-batch.

        For IMPACT these are outputs of its target network, advantages and targets, and
        the unit of the advantages, which is that of the whole batch. Each is a nest of
        tensors whose second axis is B, so that the learner can cut it like the batch.
        """

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: Any,
        unroll: Unroll,
        live: Live,
        count: int,
    ) -> Loss:
        """Returns the loss of a micro-batch; never waits for the device.

        Args:
          sample: weights and origin of the columns; None without replay.
          reference: the result of `references` for this micro-batch.
          count: T * B of the whole batch.
        """

    def after_update(self, updates: int) -> None:
        """Runs once an update, after all passes over its batch, outside of a graph.

        Args:
          updates: number of updates, this one included.
        """


def learnable(batch: types.Trajectory) -> torch.Tensor:
    """Returns float32 [T, B]: 0 from LAST to FIRST, where the action is ignored."""
    step_type = batch.time_step.step_type[:-1]
    return (step_type != types.StepType.LAST).float()


def waits(batch: types.Trajectory) -> torch.Tensor | None:
    """Returns float32 [T, B]: 1 where a player waits for others; None if none does."""
    acts = batch.time_step.acts
    if isinstance(acts, tuple):
        return None
    return learnable(batch) * ~acts[:-1]


def decides(batch: types.Trajectory) -> torch.Tensor:
    """Returns float32 [T, B]: 1 where the action makes a difference."""
    waiting = waits(batch)
    return learnable(batch) if waiting is None else learnable(batch) - waiting
