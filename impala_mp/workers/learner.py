"""Learner: unroll, loss, clip, optimizer step."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from impala_mp import errors, nest, types
from impala_mp.algorithms import base, cuda, optimizers, registry
from impala_mp.config import derived, minibatches
from impala_mp.networks import (
    agent,
    flat_parameters,
    normalisation,
    popart,
    precision,
)
from impala_mp.storage import crash_file
from impala_mp.workers import batch_parts

_Done = tuple[torch.Tensor, torch.Tensor | None]  # metrics [2, M], priorities [B]

TOTAL, GRADIENT_NORM = "loss/total", "loss/gradient_norm"
SKIPPED_SHARE = "health/skipped_share"
_HEADS = ("policy", "baseline")  # of an actor-critic network


def metric_names(config: Any) -> tuple[str, ...]:
    """Returns the names of the metrics of `update`, in order."""
    first = (TOTAL, GRADIENT_NORM, SKIPPED_SHARE, *_norm_names(config))
    return (*first, *registry.metric_names(config), *_popart_names(config))


def _parts(config: Any) -> tuple[str, ...]:
    """Returns the parts of a network whose gradient norms are measured."""
    heads = ("baseline",) if derived.learns_action_values(config) else _HEADS
    own = ("value_torso",) if config.network.critic == "separate" else ()
    return ("torso", "core", *own, *heads)


def _norm_names(config: Any) -> tuple[str, ...]:
    return tuple(f"gradient_norm/{part}" for part in _parts(config))


def _popart_names(config: Any) -> tuple[str, ...]:
    """Returns the names of PopArt's statistics, or ()."""
    if not config.loss.popart:
        return ()
    suffixes = derived.task_suffixes(config.environment)
    return tuple(f"popart/{x}{s}" for x in ("mean", "scale") for s in suffixes)


class Learner:
    """Owns the parameters, the optimizer and the counters."""

    def __init__(
        self, config: Any, policy: agent.Agent, peers: batch_parts.Peers | None = None
    ) -> None:
        """`config` is that of one rank if there are `peers`; updates are of all."""
        self._config = config
        self.rank, self.num_ranks = (peers.rank, peers.size) if peers else (0, 1)
        self.agent = policy
        device = config.learner.device
        policy.network.to(device)
        learning, acting = config.learner.precision, config.inference.precision
        self.precisions = {learning, acting}
        policy.precision = acting  # where the drift detector repeats an actor's steps
        self.devices = {device, derived.acting_device(config.inference)}
        self._autocast = functools.partial(
            precision.context,
            learning,
            torch.device(device).type,
            cache_enabled=not config.learner.cuda_graph,
        )
        self.parameters = flat_parameters.FlatParameters(policy.network, device)
        num_tasks = len(derived.task_names(config.environment))
        self._attach_gradients(peers, len(metric_names(config)), 3 * num_tasks)
        self._optimizer = optimizers.make(config.optimizer, self.parameters.trainable)
        gather = self._ranks.gather if self._ranks else base.alone
        self._algorithm = registry.make(
            config, policy, self.parameters, gather, self.num_ranks
        )
        self._popart = popart.head(policy.network)
        # Of value targets, and how many batches PopArt has seen.
        self._moments = torch.zeros(num_tasks, 3, dtype=torch.float64, device=device)
        self._popart_batches = torch.zeros(num_tasks, device=device)
        self._live = base.Live(
            *(torch.zeros((), device=device) for _ in base.Live._fields)
        )
        self._learning_rate = torch.zeros((), device=device)
        self._compute: Callable[[batch_parts.Work], _Done] = self._update
        if config.learner.cuda_graph:
            graphed = cuda.GraphedCallable(
                self._update, lambda work: work[0].time_step.reward.data_ptr()
            )
            self._compute = graphed
            if self._ranks:
                self._ranks.exchange = graphed.between
        # Places of the metrics in the vector that `update` returns.
        self.metric_index = {name: i for i, name in enumerate(metric_names(config))}
        places = [self.metric_index[name] for name in _popart_names(config)]
        self._popart_metrics = slice(places[0], places[-1] + 1) if places else slice(0)
        names = _norm_names(config)
        start = self.metric_index[names[0]]
        self._norm_metrics = slice(start, start + len(names))
        self._parts = [self.parameters.layout.part(name) for name in _parts(config)]
        # Of the last update, skipped or not.
        self.raw_metrics = torch.zeros(len(self.metric_index), device=device)
        self.priorities: torch.Tensor | None = None  # [B] of a step, with replay
        self.updates = 0
        self.agent_steps = 0

    def _attach_gradients(
        self, peers: batch_parts.Peers | None, num_metrics: int, num_moments: int
    ) -> None:
        self._ranks: batch_parts.RankSum | None = None
        if peers is None:
            self._gradient = self.parameters.attach_gradients()
            return
        tail = batch_parts.tail_size(num_metrics, num_moments, peers.size)
        whole = self.parameters.attach_gradients(tail)
        num_trainable = self.parameters.layout.num_trainable
        self._gradient = whole[:num_trainable]
        self._ranks = batch_parts.RankSum(peers, whole, num_trainable, num_metrics)
        normalisation.pool(self.agent.network, self._ranks.gather)

    @property
    def guilt(self) -> torch.Tensor:
        """1 if this rank's part of the update was not finite; how many were not."""
        return self._ranks.guilt if self._ranks else torch.zeros(2)

    def learning_rate(self, factor: float = 1.0) -> float:
        """Returns the learning rate at the agent steps learned so far."""
        rate = self._config.optimizer.learning_rate * factor
        if self._config.optimizer.schedule == "linear":
            rate *= max(0.0, 1.0 - self.agent_steps / self._config.total_agent_steps)
        return rate

    def update(
        self,
        batch: types.Trajectory,
        live: base.Live,
        sample: types.Sample | None = None,
    ) -> torch.Tensor:
        """Makes a step for each minibatch of each pass. Does not wait for the device.

        A step with a non-finite loss or gradient changes nothing, and is counted; its
        priorities are NaN. An update counts as skipped if one of its steps was.

        Args:
          sample: None if, and only if, there is no replay.

        Returns:
          Metrics, float32 [len(metric_names)]: means over the steps.
        """
        self._set(live)
        self._learning_rate.fill_(self.learning_rate(live.learning_rate_factor))
        (metrics, self.raw_metrics), self.priorities = self._compute((batch, sample))
        self.updates += 1
        rows, size = batch.shape
        fresh = size - derived.num_replayed(self._config)
        self.agent_steps += rows * fresh * self.num_ranks
        self._algorithm.after_update(self.updates)
        return metrics

    def _set(self, live: base.Live) -> None:
        for scalar, value in zip(self._live, live, strict=True):
            scalar.fill_(value)

    def loss(
        self,
        batch: types.Trajectory,
        live: base.Live,
        sample: types.Sample | None = None,
    ) -> base.Loss:
        """Returns the loss of a whole batch; learns nothing."""
        self._set(live)
        count = math.prod(batch.shape)
        (part,) = self._referred([(batch, sample)])
        return self._algorithm.loss(*part, self.unroll, self._live, count)

    def _referred(self, parts: list[batch_parts.Work]) -> list[batch_parts.Part]:
        batches = [batch for batch, _ in parts]
        references = self._algorithm.references(batches, self.unroll, self._live)
        return [(*part, each) for part, each in zip(parts, references, strict=True)]

    def _update(self, work: batch_parts.Work) -> _Done:
        """Makes the update on the device; never waits for the host.

        Returns:
          Metrics, float32 [2, len(metric_names)]: with zeros for skipped steps, and
          raw. Priorities [B], or None.
        """
        parts = batch_parts.split(*work, self._config.learner.micro_batches)
        if self._ranks:
            self._ranks.begin()
        settings = self._config.learner
        by_row = minibatches.are_rows(self._config)
        sizes = settings.passes, settings.minibatches
        each_step = batch_parts.steps(work[0], self._referred(parts), *sizes, by_row)
        steps = [self._step(each) for each in each_step]
        metrics, priorities = steps[-1]
        skipped = self.metric_index[SKIPPED_SHARE]
        if len(steps) > 1:
            each = torch.stack([one for one, _ in steps])
            metrics = each.mean(0)
            metrics[:, skipped] = each[:, :, skipped].amax(0)
        # Once an update, for any number of passes, with fresh trajectories only, if
        # there are any: each observation counts once.
        size = work[0].shape[1]
        num_fresh = size - derived.num_replayed(self._config) or size
        observation = nest.map_structure(
            lambda leaf: leaf[:-1, :num_fresh], work[0].time_step.observation
        )
        self.agent.network.adapt(observation, 1.0 - metrics[0, skipped])
        if priorities is not None:
            # Each trajectory may be the cause of a skipped step.
            priorities = priorities.where(metrics[0, skipped] == 0.0, torch.nan)
        return metrics, priorities

    def _step(self, parts: list[batch_parts.Part]) -> _Done:
        """Makes the step of a minibatch; returns the same as `_update`."""
        metrics, priorities = self._add_up(parts)
        return self._take(metrics), priorities

    def _add_up(
        self, parts: list[batch_parts.Part]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Adds up gradient, metrics and moments over micro-batches, and over ranks."""
        self._gradient.zero_()
        count = sum(math.prod(part[0].shape) for part in parts) * self.num_ranks
        metrics = torch.zeros(len(self.metric_index), device=self._gradient.device)
        priorities = []
        for part in parts:
            part_metrics, part_priorities = self._accumulate(part, count)
            metrics += part_metrics
            priorities.append(part_priorities)
        if self._ranks:
            total = self.metric_index[TOTAL]
            metrics = self._ranks.add_up(metrics, self._moments, total)
        return metrics, None if parts[0][1] is None else torch.cat(priorities)

    def _take(self, metrics: torch.Tensor) -> torch.Tensor:
        """Takes the step of the gradient; returns metrics, clean and raw."""
        index = self.metric_index
        norms = torch.stack([self._gradient[part].norm() for part in self._parts])
        metrics[self._norm_metrics].add_(norms)
        norm = self._gradient.norm()
        finite = torch.isfinite(norm + metrics[index[TOTAL]]).float()
        scale = finite
        if self._config.optimizer.clip_norm:
            scale = finite * (self._config.optimizer.clip_norm / norm).clamp(max=1.0)
        if self._popart is not None:
            # The first targets of a task only give its statistics. At another scale
            # their gradient would fill the optimizer's mean squares for long.
            begins = (self._popart_batches == 0.0) & (self._moments[:, 0] > 0.0)
            scale = scale * (~begins.any()).float()
        # 0 * inf is NaN: a skipped step must leave zeros.
        self._gradient.mul_(scale).nan_to_num_(0.0, 0.0, 0.0)
        self._optimizer.step(self._gradient, self._learning_rate, finite)
        if self._popart is not None:
            beta = self._config.loss.popart_beta
            self._popart.adapt(self._moments, beta, finite, self._popart_batches)
            self._moments.zero_()
            statistics = torch.cat([self._popart.mean, self._popart.scale])
            metrics[self._popart_metrics].add_(statistics)
        metrics[index[GRADIENT_NORM]].add_(norm)
        # The metrics of a skipped step would spoil the means.
        clean = (metrics * finite).nan_to_num_(0.0, 0.0, 0.0)
        clean[index[SKIPPED_SHARE]].add_(1.0 - finite)
        return torch.stack([clean, metrics])

    def _accumulate(
        self, part: batch_parts.Part, count: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Adds the gradient of one micro-batch; `count` is T * B of the whole batch.

        Returns:
          float32 [len(metric_names)], and the priorities of the micro-batch, or None.
        """
        loss = self._algorithm.loss(*part, self.unroll, self._live, count)
        loss.total.backward()
        zero = torch.zeros_like(loss.total.detach())
        if loss.moments is not None:
            self._moments += loss.moments
        values = {**dict.fromkeys(self.metric_index, zero), **loss.metrics}
        values[TOTAL] = loss.total.detach()
        metrics = torch.stack([values[name] for name in self.metric_index])
        return metrics, loss.priorities

    def unroll(self, batch: types.Trajectory) -> types.Nest:
        """Computes the agent's `unroll` at `learner.precision`; returns float32."""
        state = self.state_before(batch)
        with self._autocast():
            output = self.agent.unroll(
                batch.time_step, batch.agent_output.action, state
            )
        return nest.map_structure(torch.Tensor.float, output)

    @torch.no_grad()
    def state_before(self, batch: types.Trajectory) -> agent.CoreState:
        """Returns the core state before row 0 of a batch.

        Where the rows before a replayed trajectory are there, it is computed from them
        with the parameters in place, not with those that acted (burn-in: Kapturowski et
        al. 2019, R2D2, section 3). Elsewhere it is the actor's.
        """
        before = batch.before
        if not before:
            return batch.core_state
        # In a context that ends before the unroll: autocast keeps the copies of weights
        # that it makes, and these have no gradient.
        with self._autocast():
            state = self.agent.state_after(
                before.time_step, before.action, before.core_state
            )
        num_fresh = batch.shape[1] - len(before.there)
        found = []
        for new, old in zip(state, batch.core_state, strict=True):
            fresh, replayed = old[:num_fresh], old[num_fresh:]
            there = before.there.view(-1, *[1] * (old.dim() - 1))
            found.append(torch.cat([fresh, torch.where(there, new.to(old), replayed)]))
        return tuple(found)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensors that an update's metrics depend on, beside batch and hyperparameters.

        With several steps they include the optimizer's state and PopArt's number of
        batches, which the metrics of later steps depend on.
        """
        tensors = {"parameters": self.parameters.flat, **self._algorithm.state}
        if minibatches.num_steps(self._config) > 1:
            tensors |= self._optimizer.state
            tensors["popart_batches"] = self._popart_batches
        return tensors

    @property
    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors of its whole state, on its device; updates change them in place."""
        groups = {
            "optimizer": self._optimizer.state,
            "algorithm": self._algorithm.state,
        }
        return {
            "parameters": self.parameters.flat,
            **{f"{g}/{k}": v for g, state in groups.items() for k, v in state.items()},
            "popart_batches": self._popart_batches,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns parameters by name, optimizer, counters: CPU tensors and numbers."""
        network = self.agent.network.state_dict()
        return {
            "parameters": {k: v.detach().cpu().clone() for k, v in network.items()},
            "optimizer": {k: v.cpu().clone() for k, v in self._optimizer.state.items()},
            "algorithm": {k: v.cpu().clone() for k, v in self._algorithm.state.items()},
            "popart_batches": self._popart_batches.cpu().clone(),
            # That of the CPU is the process's, and saved with it.
            "device_random_state": crash_file.random_state(self._gradient.device)[1:],
            "layout": self.parameters.layout.digest,
            "updates": self.updates,
            "agent_steps": self.agent_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of `state_dict`.

        Raises:
          BadInput: the state is of another network.
        """
        if state["layout"] != self.parameters.layout.digest:
            raise errors.BadInput(
                "the checkpoint's parameters are of another network than the config and"
                " the environment describe. Restore the config, or the version of the"
                " environment that was trained."
            )
        self.agent.network.load_state_dict(state["parameters"])
        # What a changed field has added begins here: momentum at 0, a target network as
        # the learner's.
        for name, tensor in self._optimizer.state.items():
            tensor.copy_(state["optimizer"].get(name, tensor))
        for name, tensor in self._algorithm.state.items():
            tensor.copy_(state["algorithm"].get(name, self.parameters.flat))
        # Older checkpoints lack the number: their statistics are past the start.
        batches = state.get("popart_batches", torch.tensor(float(state["updates"])))
        self._popart_batches.copy_(batches)
        device = self._gradient.device
        if device.type == "cuda":
            for saved in state.get("device_random_state", []):
                torch.cuda.set_rng_state(saved, device)
        self.updates = state["updates"]
        self.agent_steps = state["agent_steps"]
