"""Repeats a learner step from a crash file and finds its first non-finite tensor."""

import collections
import math
from typing import Any

import torch

from impala_mp import errors, nest, seeding, specs, types
from impala_mp.algorithms import base, cuda
from impala_mp.config import derived, fields, minibatches
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.storage import crash_file
from impala_mp.workers import learner


class Diagnosis:
    """One crashed step, restored with its device and number of threads."""

    def __init__(self, crash: crash_file.CrashFile) -> None:
        self._crash = crash
        self._config = fields.from_json(crash.config)
        self._config.learner.cuda_graph = False  # the same kernels, without a graph
        self._config.learner.device = _there(self._config.learner.device)
        cuda.take_device(self._config.learner.device)
        torch.set_num_threads(crash.threads)
        seeding.seed_globals(seeding.sequence(self._config.seed, "main"))
        environments = factory.probe_all(self._config.environment)
        # Members of a population play the same one.
        only = next(iter(environments.values()))
        environment = environments.get(crash.policy, only)
        self._policy = agent.make(self._config, environment)
        self._learner = learner.Learner(self._config, self._policy)
        self._learner.agent_steps = crash.agent_steps
        for name, tensor in self._learner.tensors.items():
            if name in crash.tensors:  # older files have no popart_batches
                tensor.copy_(crash.tensors[name])
        self._batch = self._rebuild(environment)
        moved = [leaf.to(self._config.learner.device) for leaf in crash.sample]
        self._sample = types.Sample(*moved) if moved else None
        self._live = base.Live(**crash.live)

    def _rebuild(self, environment: specs.EnvironmentSpec) -> types.Trajectory:
        device = self._config.learner.device
        moved = iter([leaf.to(device) for leaf in self._crash.batch])
        spec = specs.trajectory_spec(
            environment,
            self._policy.output_spec(),
            self._policy.core_state_spec(),
            self._config.unroll_length,
            self._config.batch_size,
            num_predecessors=derived.num_predecessors(self._config),
        )
        learned = spec._replace(episode_end=(), parameter_version=(), header=())
        batch: types.Trajectory = nest.map_structure(lambda _: next(moved), learned)
        return batch

    def _restore_random_state(self) -> None:
        """Makes the next draws repeat those of the step."""
        device = self._learner.parameters.flat.device
        crash_file.set_random_state(self._crash.random_state, device)

    def culprit(self) -> str:
        """Names the first tensor that is not finite, and its trajectory."""
        return (
            self._in_batch()
            or self._in_forward()
            or self._in_loss()
            or self._in_update()
            or "all tensors are finite here"
        )

    def _in_batch(self) -> str:
        names = crash_file.names(self._batch)
        for name, leaf in zip(names, self._crash.batch, strict=True):
            columns = self._columns(name)
            for first in (~leaf.isfinite()).nonzero().tolist():
                row, column = (0, first[0]) if "core_state" in name else first[:2]
                if column in columns:
                    value, place = leaf[tuple(first)], self._place(row, columns[column])
                    return f"the batch's {name} is {value.item()} {place}"
        return ""

    def _columns(self, name: str) -> dict[int, int]:
        """Returns the trajectory of each column of a leaf that has a meaning."""
        size, before = self._batch.shape[1], self._batch.before
        if not name.startswith("before/"):
            return {column: column for column in range(size)}
        num_fresh = size - len(before.there)
        there = before.there.nonzero().flatten().tolist()
        return {column: num_fresh + column for column in there}

    def _place(self, row: int, column: int) -> str:
        header = {k: int(v[column]) for k, v in self._crash.header.items()}
        versions = self._crash.parameter_version[:, column]
        return (
            f"at step {row} of the trajectory of actor {header['actor']} (incarnation"
            f" {header['incarnation']}, sequence {header['sequence']}, parameter"
            f" version {int(versions[min(row, len(versions) - 1)])})"
        )

    def _in_forward(self) -> str:
        """Finds the first bad layer, in its first row: a core carries it further."""
        # Before the hooks, which count the calls for the rows of the batch.
        state = self._learner.state_before(self._batch)
        batch = self._batch._replace(before=(), core_state=state)
        found: list[str] = []
        calls: collections.Counter[str] = collections.Counter()

        def hook(name: str) -> Any:
            def look(module: Any, inputs: Any, output: Any) -> None:
                calls[name] += 1
                if isinstance(output, torch.Tensor) and not found:
                    place = self._first_in(output, calls[name] - 1)
                    found.extend(f"the output of {name} is {p}" for p in place)

            return look

        hooks = [
            module.register_forward_hook(hook(name))
            for name, module in self._policy.network.named_modules()
            if name and not list(module.children())
        ]
        self._restore_random_state()
        with torch.no_grad():
            self._learner.unroll(batch)
        for each in hooks:
            each.remove()
        return found[0] if found else ""

    def _first_in(self, output: torch.Tensor, row: int) -> list[str]:
        """Returns at most one description: the first bad value and its place.

        A layer's output has all rows, [rows, B, ...] or [rows * B, ...], or only `row`.
        """
        if output.isfinite().all():
            return []
        shape = tuple(self._batch.time_step.reward.shape)
        if output.shape[:2] != shape:
            if output.shape[0] not in (shape[1], shape[0] * shape[1]):
                return ["not finite"]
            output = output.reshape(-1, shape[1], *output.shape[1:])
        first = (~output.isfinite()).nonzero()[0].tolist()
        row = first[0] if len(output) > 1 else row
        return [f"{output[tuple(first)].item()} {self._place(row, first[1])}"]

    def _in_loss(self) -> str:
        """Finds the first bad part of the loss, in its last row.

        V-trace runs from the last row to the first. A bad row spoils those before it.
        """
        self._restore_random_state()
        loss = self._learner.loss(self._batch, self._live, self._sample)
        for name, element in loss.elements.items():
            bad = (~element.isfinite()).nonzero()
            if len(bad):
                return self._element(name, element, *bad[-1].tolist())
        return ""

    def _element(self, name: str, element: torch.Tensor, row: int, column: int) -> str:
        reward = self._batch.time_step.reward[row + 1, column].item()
        return (
            f"{name} is {element[row, column].item():g} {self._place(row, column)},"
            f" whose reward is {reward:g}"
        )

    def _in_update(self) -> str:
        """Finds the first bad sum, over the batch or over the network."""
        self._restore_random_state()
        loss = self._learner.loss(self._batch, self._live, self._sample)
        self._restore_random_state()
        self._learner.update(self._batch, self._live, self._sample)
        names = learner.metric_names(self._config)
        values = dict(zip(names, self._learner.raw_metrics.tolist(), strict=True))
        bad = [name for name in names if not math.isfinite(values[name])]
        if not bad:
            return ""
        terms = {n: e.detach() for n, e in loss.elements.items() if n in loss.metrics}
        most = max(terms, key=lambda name: terms[name].abs().max().item())
        size = terms[most].shape[1]
        row, column = divmod(int(terms[most].abs().argmax()), size)
        once = minibatches.num_steps(self._config) == 1
        loss_name = "the loss" if once else "the first pass's loss"
        return (
            f"{bad[0]} is {values[bad[0]]}, but all elements of {loss_name} are finite;"
            f" the largest: {self._element(most, terms[most], row, column)}"
        )

    def repeats(self) -> bool:
        """Returns True if the step gives the same metrics again, bit for bit."""
        self._restore_random_state()
        self._learner.update(self._batch, self._live, self._sample)
        raw = self._learner.raw_metrics.cpu().contiguous()
        return torch.equal(raw.view(torch.int32), self._crash.metrics.view(torch.int32))


def _there(device: str) -> str:
    """Returns the device, or the first GPU of a machine that has not as many.

    Raises:
      BadInput: the update was made on a GPU, and there is none here.
    """
    wanted, count = torch.device(device), torch.cuda.device_count()
    if wanted.type != "cuda" or (wanted.index or 0) < count:
        return device
    if count:
        return "cuda"
    raise errors.BadInput(
        f"the update was made on {device}, and torch sees no CUDA device here."
        " Repeat it on a machine with a GPU."
    )
