"""The contract of learner and algorithm: a batch in, a loss and its metrics out."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from impala_mp import types
from impala_mp.config import live_hyperparameters
from impala_mp.networks import agent


class Live(NamedTuple):
    """Hyperparameters that may change between updates.

    Numbers on the host; for an algorithm scalars on the learner's device, so that a
    graph of the update reads what they are now.
    """

    entropy_cost: Any
    learning_rate_factor: Any  # of the schedule's value
    clip_rho_threshold: Any
    clip_pg_rho_threshold: Any
    clip_c_threshold: Any


def live_from_config(config: Any) -> Live:
    """Returns the values at the start of a run of `config`."""
    values = live_hyperparameters.of_config(config).initial()
    return Live(*(values[name] for name in Live._fields))


class Loss(NamedTuple):
    """Of one micro-batch; over those of a batch what is a scalar adds up."""

    total: torch.Tensor  # a scalar, to be differentiated
    metrics: dict[str, torch.Tensor]  # scalars without a gradient, by metric name
    elements: dict[str, torch.Tensor]  # [T, B] that the scalars are made of, in order
    moments: torch.Tensor | None  # of value targets, [tasks, 3], for PopArt if it is on
    priorities: torch.Tensor | None = None  # [B] of its own, for the replay


# The network's view of a batch, in float32: [T+1, B, L] and [T+1, B].
Unroll = Callable[[types.Trajectory], agent.NetworkOutput]


class Algorithm(Protocol):
    """What `config.algorithm` names."""

    metric_names: tuple[str, ...]
    state: dict[str, torch.Tensor]  # beside the parameters; changed in place

    def reference(
        self, batch: types.Trajectory, unroll: Unroll
    ) -> agent.NetworkOutput | None:
        """What a micro-batch is held against, the same in all passes; or None."""

    def loss(
        self,
        batch: types.Trajectory,
        sample: types.Sample | None,
        reference: agent.NetworkOutput | None,
        unroll: Unroll,
        live: Live,
        count: int,
    ) -> Loss:
        """The loss of a micro-batch; `count` is T * B of the whole batch.

        `reference` is what the method of that name gave. Nothing here asks anything of
        the host. Without replay `sample` is None; `off_policy` says what to make of it.
        """

    def after_update(self, updates: int) -> None:
        """Once an update, after all passes over its batch; outside of a CUDA graph."""


def learnable(batch: types.Trajectory) -> torch.Tensor:
    """float32 [T, B]: 0 where LAST leads to FIRST and the action was ignored."""
    step_type = batch.time_step.step_type[:-1]
    return (step_type != types.StepType.LAST).float()
