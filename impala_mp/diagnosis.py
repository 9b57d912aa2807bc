"""Repeats a learner step from a crash file, and finds where it first went bad."""

import math
from typing import Any

import torch

from impala_mp import (
    agent,
    algorithm,
    config as config_lib,
    crash_file,
    environments,
    learner,
    placement,
    types,
)


class Diagnosis:
    """A step set up again, on the device it ran on."""

    def __init__(self, crash: crash_file.CrashFile) -> None:
        self._crash = crash
        self._config = config_lib.from_json(crash.config)
        self._config.learner.cuda_graph = False  # the same kernels, one by one
        placement.take_device(self._config.learner.device)
        environment = environments.probe(self._config.environment)
        self._policy = agent.make(self._config, environment)
        self._learner = learner.Learner(self._config, self._policy)
        self._learner.agent_steps = crash.agent_steps
        for name, tensor in self._learner.tensors.items():
            tensor.copy_(crash.tensors[name])
        self._batch = self._rebuild()
        moved = [leaf.to(self._config.learner.device) for leaf in crash.sample]
        self._sample = types.Sample(*moved) if moved else None
        self._live = algorithm.Live(**crash.live)
        torch.set_rng_state(crash.random_state)

    def _rebuild(self) -> types.Trajectory:
        device = self._config.learner.device
        moved = iter([leaf.to(device) for leaf in self._crash.batch])
        return types.Trajectory(
            types.TimeStep(*(next(moved) for _ in types.TimeStep._fields)),
            types.AgentOutput(*(next(moved) for _ in types.AgentOutput._fields)),
            (),
            (),
            tuple(next(moved) for _ in self._policy.core_state_spec()),
            (),
        )

    def culprit(self) -> str:
        """A sentence on the first tensor that is not finite, and where it came from."""
        names = crash_file.names(self._batch)
        for name, leaf in zip(names, self._crash.batch, strict=True):
            if leaf.is_floating_point() and not leaf.isfinite().all():
                return f"the batch's {name} {self._place(leaf, name)}"
        return self._in_forward() or self._in_backward() or "everything is finite here"

    def _place(self, leaf: torch.Tensor, name: str = "") -> str:
        """Where the first bad element of [T, B, ...] lies (of [B, ...]: a state)."""
        first = (~leaf.isfinite()).nonzero()[0].tolist()
        row, column = (0, first[0]) if "core_state" in name else first[:2]
        header = {k: int(v[column]) for k, v in self._crash.header.items()}
        versions = self._crash.parameter_version[:, column]
        version = int(versions[min(row, len(versions) - 1)])
        return (
            f"is {leaf[tuple(first)].item()} at step {row} of the trajectory of actor"
            f" {header['actor']} (incarnation {header['incarnation']}, sequence"
            f" {header['sequence']}, parameter version {version})"
        )

    def _in_forward(self) -> str:
        found: list[str] = []
        size = self._config.batch_size

        def hook(name: str) -> Any:
            def look(module: Any, inputs: Any, output: Any) -> None:
                if found or not isinstance(output, torch.Tensor):
                    return
                if not output.isfinite().all():
                    rows = output.reshape(-1, size, *output.shape[1:])
                    if output.shape[:1].numel() % size:
                        rows = output
                    found.append(f"the output of {name} {self._place(rows.cpu())}")

            return look

        hooks = [
            module.register_forward_hook(hook(name))
            for name, module in self._policy.network.named_modules()
            if name and not list(module.children())
        ]
        with torch.no_grad():
            batch = self._batch
            self._policy.unroll(
                batch.time_step, batch.agent_output.action, batch.core_state
            )
        for each in hooks:
            each.remove()
        return found[0] if found else ""

    def _in_backward(self) -> str:
        self._learner.update(self._batch, self._live, self._sample)
        for name, value in zip(
            learner.metric_names(self._config),
            self._learner.raw_metrics.tolist(),
            strict=True,
        ):
            if not math.isfinite(value):
                return f"{name} is {value}, though all that the network gives is finite"
        return ""

    def repeats(self) -> bool:
        """Whether the step gives the same metrics again, bit for bit."""
        self._learner.update(self._batch, self._live, self._sample)
        raw = self._learner.raw_metrics.cpu().contiguous()
        return torch.equal(raw.view(torch.int32), self._crash.metrics.view(torch.int32))
