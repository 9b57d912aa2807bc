"""Context of all benchmark subjects: config, timer and summaries."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_mp import nest, specs, types
from impala_mp.algorithms import cuda
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.runtime import calibration, resources

Result = dict[str, Any]  # min, median, max, unit
Rows = dict[str, Result]
Ratios = dict[str, float]


def summary(values: list[float], unit: str) -> Result:
    return {
        "min": min(values),
        "median": float(np.median(values)),
        "max": max(values),
        "unit": unit,
    }


def scaled(result: Result, factor: float, unit: str) -> Result:
    return {k: result[k] * factor for k in ("min", "median", "max")} | {"unit": unit}


def rate(seconds: Result, count: float, unit: str) -> Result:
    """`count` things in so many seconds, as things a second."""
    return {
        "min": count / seconds["max"],
        "median": count / seconds["median"],
        "max": count / seconds["min"],
        "unit": unit,
    }


class Options(NamedTuple):
    """Flags of the benchmark."""

    repeats: int
    train_secs: float
    seeds: int
    target_return: float
    updates: int


class Context:
    """One benchmark: what is measured, and what has been measured so far."""

    def __init__(self, config: Any, flags: list[str], options: Options) -> None:
        torch.set_num_threads(1)  # parts are measured in core-seconds
        resources.choose_devices(config, 0)  # auto: the CPU
        resources.check_devices(config)
        cuda.take_device(config.learner.device)
        self.config, self.flags, self.options = config, flags, options
        self.results: Rows = {}
        self.environment = factory.probe(config.environment)
        for sentence in calibration.choose_precisions(config, self.environment):
            print(sentence)
        self.device = torch.device(config.learner.device)

    def time(self, function: Callable[[], Any], secs: float = 0.5) -> Result:
        """Seconds a call; each repeat calls for at least `secs`, after a warm-up."""
        self.seconds_a_call(function, secs / 4)
        values = [
            self.seconds_a_call(function, secs) for _ in range(self.options.repeats)
        ]
        return summary(values, "s")

    def seconds_a_call(self, function: Callable[[], Any], secs: float) -> float:
        self.synchronize()
        count, start = 0, time.perf_counter()
        while not count or time.perf_counter() - start < secs:
            function()
            count += 1
        self.synchronize()
        return (time.perf_counter() - start) / count

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def agent(self) -> agent.Agent:
        torch.manual_seed(0)
        made = agent.make(self.config, self.environment)
        made.precision = self.config.inference.precision
        return made

    def spec(self, size: int) -> types.Trajectory:
        """Returns the layout of `size` trajectories."""
        policy = self.agent()
        return specs.trajectory_spec(
            self.environment,
            policy.output_spec(),
            policy.core_state_spec(),
            self.config.unroll_length,
            size,
        )

    def batch(self, size: int) -> types.Trajectory:
        """Random trajectories [T+1, size, ...], as tensors on the CPU."""
        rng = np.random.default_rng(0)
        arrays = specs.example_trajectory(self.environment, self.spec(size))
        for leaf in nest.flatten(arrays.time_step.observation):
            if leaf.dtype == np.uint8:
                leaf[:] = rng.integers(0, 256, leaf.shape)
            elif leaf.dtype.kind == "f":
                leaf[:] = rng.random(leaf.shape)
        arrays.time_step.step_type[:] = types.StepType.MID
        arrays.time_step.discount[:] = 1.0
        arrays.time_step.reward[:] = rng.normal(size=arrays.time_step.reward.shape)
        action, spec = arrays.agent_output.action, self.environment.action
        if isinstance(spec, specs.DiscreteSpec):
            action[:] = rng.integers(spec.num_actions, size=action.shape)
        return nest.map_structure(torch.from_numpy, arrays)


def to_device(batch: types.Trajectory, device: torch.device) -> types.Trajectory:
    return nest.map_structure(lambda leaf: leaf.to(device), batch)
