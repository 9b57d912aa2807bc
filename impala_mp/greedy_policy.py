"""An agent's greedy step as one module of named tensors, which can stand alone."""

from typing import Any

import numpy as np
import torch
from torch import nn

from impala_mp import agent, cores, nest, specs, types

Tensors = dict[str, torch.Tensor]


class GreedyPolicy(nn.Module):
    """From named inputs [N, ...] to named outputs [N, ...], N as large as one likes.

    In, as far as the agent takes notice of it: `observation`, in the environment's
    own dtype; `first`, bool, whether an episode begins with it; `reward`, float32, of
    the step that led here, 0 at the first; `core_state/0` and so on. Out: `action`, as
    the environment takes it; `policy_logits`; `baseline`; `next_core_state/0` and so
    on. An observation or action of several arrays is one name a leaf, by its path:
    `observation/arm/0`.
    """

    def __init__(self, policy: agent.Agent, environment: specs.EnvironmentSpec) -> None:
        super().__init__()
        self.network = policy.network
        self._policy = policy
        self._observation = environment.observation
        state = policy.core_state_spec()
        self._state = [f"core_state/{i}" for i in range(len(state))]
        self.inputs = dict(_named("observation", environment.observation))
        if policy.network.last_action or not isinstance(
            policy.network.core, cores.NoCore
        ):
            self.inputs["first"] = specs.array_spec((), np.bool_)
        if policy.network.last_reward:
            self.inputs["reward"] = specs.array_spec((), np.float32)
        self.inputs.update(zip(self._state, state, strict=True))
        self.carried = {f"next_{name}": name for name in self._state}  # output: input

    def forward(self, inputs: Tensors) -> Tensors:
        """The greedy action for each row, and all that is known of it."""
        output, state = self._policy.step(
            self._time_step(inputs),
            tuple(inputs[name] for name in self._state),
            greedy=True,
        )
        action = self._policy.distribution.to_environment(output.action)
        return {
            **dict(_named("action", action)),
            "policy_logits": output.policy_logits,
            "baseline": output.baseline,
            **dict(zip(self.carried, state, strict=True)),
        }

    def _time_step(self, inputs: Tensors) -> types.TimeStep:
        leaves = [inputs[name] for name, _ in _named("observation", self._observation)]
        upcoming = iter(leaves)
        rows = leaves[0].shape[0]
        first = inputs.get("first", torch.zeros(rows, dtype=torch.bool))
        return types.TimeStep(
            step_type=torch.where(first, types.StepType.FIRST, types.StepType.MID),
            reward=inputs.get("reward", torch.zeros(rows)),
            discount=torch.ones(rows),
            observation=nest.map_structure(
                lambda spec: next(upcoming), self._observation
            ),
        )

    def rows(self, time_step: types.TimeStep, state: cores.CoreState) -> Tensors:
        """The inputs that say what `time_step` [N, ...] and `state` do."""
        there = {
            **dict(_named("observation", time_step.observation)),
            "first": time_step.step_type == types.StepType.FIRST,
            "reward": time_step.reward,
            **dict(zip(self._state, state, strict=True)),
        }
        return {name: there[name] for name in self.inputs}


def _named(prefix: str, structure: types.Nest) -> list[tuple[str, Any]]:
    """(name, leaf) of each leaf."""
    return [
        (f"{prefix}/{path}" if path else prefix, leaf)
        for path, leaf in nest.flatten_with_path(structure)
    ]
