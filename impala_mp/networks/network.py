"""Network: encoder, core, policy head and value head."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from impala_mp import errors, nest, specs, types
from impala_mp.networks import cores, encoders, initialisers, popart, precision
from impala_mp.networks.distributions import base, categorical


class LastAction(NamedTuple):
    """Actions that led to rows, [T, B, ...]."""

    action: types.Nest
    acted: types.Nest = ()  # bool, False: it was ignored; (): none was, but at FIRST


class PolicyHead(nn.Linear):
    """Linear layer to logits. Free logits are the same for all observations.

    Logarithms of normals' deviations are free; they begin at that of `initial_std`.
    """

    _depends: torch.Tensor

    def __init__(
        self,
        size: int,
        distribution: base.ActionDistribution,
        initial_std: float,
    ) -> None:
        super().__init__(size, distribution.num_logits)
        initialisers.orthogonal(self, 0.01)
        depends = torch.tensor([not free for free in distribution.free]).float()
        self._has_free = any(distribution.free)
        if initial_std != 1.0 and not self._has_free:
            raise errors.BadInput(
                f"network.initial_std ({initial_std}) is of actions in a Box, and the"
                " environment has none: leave config.network.initial_std at 1.0."
            )
        with torch.no_grad():
            self.bias.add_((1.0 - depends) * math.log(initial_std))
        self.register_buffer("_depends", depends.unsqueeze(-1), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if not self._has_free:
            return super().forward(features)
        return functional.linear(features, self.weight * self._depends, self.bias)


class Network(nn.Module):
    """Encoder, optional last reward and action, core, and two heads.

    A subclass with other heads replaces `_make_heads` and `_heads`, and `_learned` if
    it learns more than it acts by.
    """

    baseline: nn.Module  # the value head

    def __init__(
        self,
        config: Any,
        environment: specs.EnvironmentSpec,
        distribution: base.ActionDistribution,
    ) -> None:
        super().__init__()
        settings = config.network
        self._distribution = distribution
        self._mask_path = environment.action_mask
        self.last_reward, self.last_action = settings.last_reward, settings.last_action
        self._seen, self._seen_path = specs.network_inputs(environment)
        self._is_all_seen = self._seen is environment.observation
        self.critic: nn.Module | None = None  # encoder of what only values see
        self._num_privileged = 0
        self._privileged_path = environment.privileged
        if environment.privileged:
            privileged = nest.at(environment.observation, environment.privileged)
            self.critic = encoders.make_critic(settings, privileged)
            self._num_privileged = encoders.num_features(self.critic, privileged)
        self.torso = encoders.make(settings, self._seen)
        size = encoders.num_features(self.torso, self._seen)
        size += int(self.last_reward) + self.last_action * distribution.encoding_size
        self.value_torso: nn.Module | None = None  # of values alone
        self._num_inputs = size
        if settings.critic == "separate":
            self.value_torso = encoders.make(settings, self._seen)
        self.core = cores.make(settings, size)
        self._task_path = environment.task
        self._with_popart = config.loss.popart
        self._make_heads(self.core.output_size, config, environment.num_tasks)

    def _make_heads(self, size: int, config: Any, num_tasks: int) -> None:
        """Makes the heads over features of `size` numbers."""
        initial_std = config.network.initial_std
        self.policy = PolicyHead(size, self._distribution, initial_std)
        if self.value_torso is not None:
            size = self._num_inputs
        size += self._num_privileged
        self.baseline = popart.value_head(size, num_tasks, self._with_popart)

    def forward(
        self,
        time_step: types.TimeStep,
        last_action: LastAction | None,
        state: cores.CoreState,
    ) -> tuple[torch.Tensor, torch.Tensor, cores.CoreState]:
        """Maps [T, B, ...] to what the heads return, and the core state."""
        output, state = self.through_core(time_step, last_action, state)
        logits, values = precision.in_float32(
            lambda features, own: self._heads(features, own, time_step),
            output,
            self._of_values(output, time_step, last_action),
        )
        return logits, values, state

    def act(
        self,
        time_step: types.TimeStep,
        last_action: LastAction | None,
        state: cores.CoreState,
    ) -> tuple[torch.Tensor, cores.CoreState]:
        """Maps [T, B, ...] to policy_logits and the core state, without values."""
        output, state = self.through_core(time_step, last_action, state)
        logits = precision.in_float32(self.policy, output)
        return self._masked(logits, time_step), state

    def unroll(
        self,
        time_step: types.TimeStep,
        last_action: LastAction | None,
        state: cores.CoreState,
    ) -> tuple[torch.Tensor, ...]:
        """Maps [T+1, B, ...] to the outputs that are learned."""
        output, _ = self.through_core(time_step, last_action, state)
        learned: tuple[torch.Tensor, ...] = precision.in_float32(
            lambda features, own: self._learned(features, own, time_step),
            output,
            self._of_values(output, time_step, last_action),
        )
        return learned

    def through_core(
        self,
        time_step: types.TimeStep,
        last_action: LastAction | None,
        state: cores.CoreState,
    ) -> tuple[torch.Tensor, cores.CoreState]:
        """Maps [T, B, ...] to the features of the heads, and the core state."""
        first = time_step.step_type == types.StepType.FIRST
        inputs = self._inputs(self.torso, time_step, last_action)
        output, state = self.core(inputs, first, state)
        return output, precision.in_float32(lambda *leaves: leaves, *state)

    def _inputs(
        self,
        torso: nn.Module,
        time_step: types.TimeStep,
        last_action: LastAction | None,
    ) -> torch.Tensor:
        """Returns features of `torso`, with the last reward and action: [T, B, F]."""
        first = time_step.step_type == types.StepType.FIRST
        rows, batch = first.shape
        inputs = [torso(self._rows(time_step.observation)).view(rows, batch, -1)]
        if self.last_reward:
            inputs.append(time_step.reward.clamp(-1.0, 1.0).unsqueeze(-1))
        if last_action is not None:
            seen = ~first
            if not isinstance(last_action.acted, tuple):
                seen = seen & last_action.acted
            encoded = self._distribution.encode(last_action.action)
            inputs.append(encoded * seen.unsqueeze(-1))
        return torch.cat(inputs, -1) if len(inputs) > 1 else inputs[0]

    def _of_values(
        self,
        output: torch.Tensor,
        time_step: types.TimeStep,
        last_action: LastAction | None,
    ) -> torch.Tensor:
        """Returns the features of values: the policy's `output`, or separate ones."""
        if self.value_torso is None:
            return output
        return self._inputs(self.value_torso, time_step, last_action)

    def _heads(
        self,
        output: torch.Tensor,
        of_values: torch.Tensor,
        time_step: types.TimeStep,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features [T, B, F] to policy_logits [T, B, L] and baseline [T, B]."""
        logits = self._masked(self.policy(output), time_step)
        return logits, self._values(of_values, time_step).squeeze(-1)

    def _learned(
        self,
        output: torch.Tensor,
        of_values: torch.Tensor,
        time_step: types.TimeStep,
    ) -> tuple[torch.Tensor, ...]:
        """Maps features [T+1, B, F] to the outputs that are learned."""
        return self._heads(output, of_values, time_step)

    def _masked(self, logits: torch.Tensor, time_step: types.TimeStep) -> torch.Tensor:
        """Marks the actions that are not allowed: [T, B, L]."""
        if not self._mask_path:
            return logits
        mask = nest.at(time_step.observation, self._mask_path)
        return categorical.masked(logits, mask.flatten(2) != 0)

    def _values(self, output: torch.Tensor, time_step: types.TimeStep) -> torch.Tensor:
        """Returns the outputs of the value head: [T, B, outputs]."""
        if self.critic is not None:
            state = nest.at(time_step.observation, self._privileged_path)
            rows, batch = output.shape[:2]
            privileged = self.critic(_merged(state)).view(rows, batch, -1)
            output = torch.cat([output, privileged], -1)
        heads = (output, self.task_of(time_step)) if self._with_popart else (output,)
        values: torch.Tensor = self.baseline(*heads)
        return values

    def task_of(self, time_step: types.TimeStep) -> torch.Tensor | None:
        """Returns the task of each row, int64 [T, B]; None with a single task."""
        if not self._task_path:
            return None
        found: torch.Tensor = nest.at(time_step.observation, self._task_path)
        return found

    @torch.no_grad()
    def adapt(self, observation: types.Nest, finite: torch.Tensor) -> None:
        """Updates the statistics that normalise observations [T, B, ...].

        A custom torso may lack the method. Does nothing if `finite`, a scalar, is 0.
        """
        for torso in (self.torso, self.value_torso):
            if torso is not None:
                _adapt(torso, self._rows(observation), finite)
        if self.critic is not None:
            state = nest.at(observation, self._privileged_path)
            _adapt(self.critic, _merged(state), finite)

    def _rows(self, observation: types.Nest) -> types.Nest:
        """Returns the encoder's input: [T, B, ...] -> [T * B, ...]."""
        if self._seen_path:
            observation = nest.at(observation, self._seen_path)
        elif not self._is_all_seen:
            observation = specs.pick(self._seen, observation)
        return _merged(observation)


def _adapt(torso: nn.Module, rows: types.Nest, finite: torch.Tensor) -> None:
    adapt = getattr(torso, "adapt", None)
    if adapt is not None and not isinstance(adapt, nn.Module):
        adapt(rows, finite)


def _merged(observation: types.Nest) -> types.Nest:
    """[T, B, ...] -> [T * B, ...]."""
    if isinstance(observation, torch.Tensor):
        return observation.flatten(0, 1)
    return nest.map_structure(lambda leaf: leaf.flatten(0, 1), observation)
