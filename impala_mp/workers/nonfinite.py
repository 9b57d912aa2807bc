"""Detects skipped learner steps, and keeps their inputs in crash files.

The learner decides on the device whether to take a step. On a CPU the result is read
immediately. On a GPU it is read after the next update has been queued, so that the host
never waits for the current one; the parameters before each step are kept until then. A
CPU keeps them only where a skipped step may still change tensors: in another step of
the update, or in a target network.
"""

import collections
import contextlib
import os
from typing import Any, NamedTuple

import torch

from impala_mp import errors
from impala_mp.algorithms import base, cuda
from impala_mp.config import fields
from impala_mp.storage import crash_file
from impala_mp.workers import batcher, learner

_METRIC = learner.SKIPPED_SHARE


class _Step(NamedTuple):
    batch: batcher.Batch
    tensors: dict[str, torch.Tensor]
    agent_steps: int
    random_state: list[torch.Tensor]
    skipped: cuda.HostCopy  # share of the steps; 0: none
    guilt: cuda.HostCopy  # of this rank, and of how many
    raw_metrics: torch.Tensor
    live: base.Live
    update: int


class Guard:
    """Guard of the learner; `before` and `after` are called around each update."""

    def __init__(
        self, config: Any, the_learner: learner.Learner, folder: str, policy: str = ""
    ) -> None:
        """`folder` is that of crash files; `policy` is the name of one of several."""
        self._config, self._learner, self._folder = config, the_learner, folder
        self._policy = policy
        self._tensors = the_learner.tensors
        self._device = the_learner.parameters.flat.device
        self._cuda = self._device.type == "cuda"
        self._keeps = self._cuda or len(self._tensors) > 1
        self._before = collections.deque(
            {name: torch.empty_like(tensor) for name, tensor in self._tensors.items()}
            for _ in range((2 if self._cuda else 1) if self._keeps else 0)
        )
        self._agent_steps = 0  # before the current update; likewise
        self._random_state: list[torch.Tensor] = []
        self._pending: collections.deque[_Step] = collections.deque()
        self._in_a_row = 0
        self._newest = ""  # crash file

    def before(self) -> None:
        """Copies the state that the update depends on."""
        self._agent_steps = self._learner.agent_steps
        self._random_state = crash_file.random_state(self._device)
        if self._keeps:
            self._before.rotate(1)
            for name, tensor in self._tensors.items():
                self._before[0][name].copy_(tensor)

    def after(
        self, batch: batcher.Batch, metrics: torch.Tensor, live: base.Live
    ) -> None:
        """Checks the newest update whose outcome is known.

        Raises:
          RunFailed: too many steps in a row were skipped.
        """
        skipped = cuda.HostCopy(metrics[self._learner.metric_index[_METRIC]])
        raw = self._learner.raw_metrics
        raw = raw.clone() if self._cuda else raw  # a graph's next replay overwrites it
        tensors = self._before[0] if self._keeps else self._tensors
        before = tensors, self._agent_steps, self._random_state
        guilt, update = cuda.HostCopy(self._learner.guilt), self._learner.updates
        self._pending.append(_Step(batch, *before, skipped, guilt, raw, live, update))
        if len(self._pending) > self._cuda:
            self._judge(self._pending.popleft())

    def conclude(self) -> None:
        """Waits for the last update of a run and checks it; nothing is left to stop."""
        while self._pending:
            with contextlib.suppress(errors.RunFailed):
                self._judge(self._pending.popleft())

    def _judge(self, step: _Step) -> None:
        if not step.skipped.read().item():
            self._in_a_row = 0
            return
        self._in_a_row += 1
        own, most = step.guilt.read().tolist()
        # Of several ranks those whose part was bad, or the first if only the sum was.
        if own or not (most or self._learner.rank):
            self._newest = self._keep(step) or self._newest
        sentence = (
            f"the loss or the gradient of update {step.update} is not finite; the step"
            f" was skipped.{self._see()}"
        )
        print(sentence, flush=True)
        if self._in_a_row >= self._config.health.max_skipped_updates:
            raise errors.RunFailed(f"{self._in_a_row} updates in a row: {sentence}")

    def _see(self) -> str:
        return f" Run impala-diagnose {self._newest}." if self._newest else ""

    def _keep(self, step: _Step) -> str:
        """Writes a crash file, unless there are max_crash_files already."""
        there = os.listdir(self._folder) if os.path.isdir(self._folder) else []
        if len(there) >= self._config.health.max_crash_files:
            return ""
        crash = crash_file.CrashFile(
            config=fields.to_json(self._config),
            device=str(self._device),
            tensors={name: each.cpu().clone() for name, each in step.tensors.items()},
            agent_steps=step.agent_steps,
            batch=crash_file.leaves(step.batch.trajectory),
            header={
                name: torch.from_numpy(values.copy())
                for name, values in step.batch.header._asdict().items()
            },
            parameter_version=torch.from_numpy(step.batch.parameter_version.copy()),
            sample=[leaf.cpu().clone() for leaf in step.batch.sample or ()],
            metrics=step.raw_metrics.cpu().clone(),
            live=step.live._asdict(),
            random_state=step.random_state,
            threads=torch.get_num_threads(),
            update=step.update,
            policy=self._policy,
        )
        try:
            return crash_file.save(self._folder, crash)
        except OSError as error:
            print(f"A crash file could not be written: {error}.", flush=True)
            return ""
