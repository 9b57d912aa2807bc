"""Agent: how actor, learner and evaluator use a network."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.config import base as base_config, derived
from impala_mp.networks import (
    cores,
    network as network_lib,
    precision,
    q_network,
    quantile_network,
)
from impala_mp.networks.distributions import base, categorical, joint

CoreState = cores.CoreState


class NetworkOutput(NamedTuple):
    """Outputs of the network for each row: [T+1, B, L], [T+1, B]."""

    policy_logits: torch.Tensor
    baseline: torch.Tensor


class Agent:
    """Network with the meaning of its logits, its core state and its output.

    The core state is a tuple of tensors [B, ...]: the leaves of the last action if the
    network uses it, then the recurrent state. T+1 calls of `step` equal one `unroll`.
    """

    outputs_name = "policy_logits"  # of the network's first output
    output_type: Any = NetworkOutput  # of `unroll`, a named tuple

    def __init__(
        self,
        network: network_lib.Network,
        distribution: base.ActionDistribution,
        action: specs.ActionSpec,
        waits: bool = False,
    ) -> None:
        """Takes a network and the meaning of its logits; `waits` is the spec's."""
        self.precision = precision.FLOAT32  # of the network in `step`
        self.network = network
        self.distribution = distribution
        self._action = action
        self._last = network_lib.LastAction(
            nest.map_structure(lambda leaf: leaf.array, action),
            specs.array_spec((), np.bool_) if waits else (),
        )

    def core_state_spec(self) -> tuple[specs.ArraySpec, ...]:
        """Returns the specs of the core state, without the batch."""
        shapes = self.network.core.state_shapes
        core = tuple(specs.array_spec(shape, np.float32) for shape in shapes)
        if not self.network.last_action:
            return core
        return (*nest.flatten(self._last), *core)

    def output_spec(self) -> types.AgentOutput:
        """Returns the specs of one row of `step`'s output, without the batch.

        Slots, batches and replay are laid out by it. An agent with other outputs
        returns another named tuple, with at least `action`.
        """
        num_logits = self.distribution.num_logits
        return specs.actor_critic_output(self._action, num_logits)

    def initial_state(self, batch_size: int, device: str = "cpu") -> CoreState:
        """Returns zeros, which any state becomes at FIRST."""
        return tuple(
            torch.from_numpy(np.zeros((batch_size, *spec.shape), spec.dtype)).to(device)
            for spec in self.core_state_spec()
        )

    def step(
        self,
        time_step: types.TimeStep,
        state: CoreState,
        *,
        epsilon: float | torch.Tensor = 0.0,
        temperature: float = 1.0,
        greedy: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[types.AgentOutput, CoreState]:
        """Acts on one row [B, ...].

        The logits in the output are those of the behaviour policy that the action was
        drawn from, with exploration:

            mu = (1 - epsilon) pi^(1 / temperature) + epsilon uniform

        Args:
          epsilon: one number, or float64 [B].
          greedy: take the mode instead of a sample.

        Returns:
          The output [B, ...], and the core state after the row.
        """
        outputs, baseline, core = self.look(time_step, state)
        logits = self.policy_logits(outputs)
        logits = self.distribution.mix(logits, epsilon, temperature)
        action = self._choose(logits, greedy, generator)
        state = self.remember(time_step, action, core)
        return types.AgentOutput(action, logits, baseline), state

    def decide(
        self,
        time_step: types.TimeStep,
        state: CoreState,
        *,
        greedy: bool,
        generator: torch.Generator | None = None,
    ) -> tuple[types.Nest, CoreState]:
        """Returns the action of `step`, and the state, without the value.

        The observation needs nothing that only values see.
        """
        outputs, core = self.look_for_policy(time_step, state)
        action = self._choose(self.policy_logits(outputs), greedy, generator)
        return action, self.remember(time_step, action, core)

    def _choose(
        self, logits: torch.Tensor, greedy: bool, generator: torch.Generator | None
    ) -> types.Nest:
        if greedy:
            return self.distribution.mode(logits)
        return self.distribution.sample(logits, generator)

    def look(
        self, time_step: types.TimeStep, state: CoreState
    ) -> tuple[torch.Tensor, torch.Tensor, CoreState]:
        """Returns the network's outputs for one row, [B, L] and [B], and its state."""
        last_action, core = self._split(state)
        with precision.context(self.precision, time_step.step_type.device.type):
            outputs, baseline, core = self.network(
                _one_row(time_step), last_action, core
            )
        return outputs[0], baseline[0], core

    def look_for_policy(
        self, time_step: types.TimeStep, state: CoreState
    ) -> tuple[torch.Tensor, CoreState]:
        """Returns the policy's outputs of `look`, and the state, without the value.

        The observation needs nothing that only values see.
        """
        last_action, core = self._split(state)
        with precision.context(self.precision, time_step.step_type.device.type):
            outputs, core = self.network.act(_one_row(time_step), last_action, core)
        return outputs[0], core

    def policy_logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Returns the logits of pi, from the network's first output: [..., L]."""
        return outputs

    def describe(self, outputs: torch.Tensor) -> list[base.Element]:
        """Describes the network's first output for one row, [L]."""
        return self.distribution.describe(outputs)

    def unroll(
        self, time_step: types.TimeStep, action: types.Nest, state: CoreState
    ) -> Any:
        """Returns the network's outputs for T+1 rows, given the T actions taken.

        They are an `output_type`.
        """
        last_action, core = self._split(state)
        if self.network.last_action:
            last_action = nest.map_structure(
                lambda *leaves: torch.cat(leaves),
                last_action,
                self._taken(time_step, action),
            )
        return self.output_type(*self.network.unroll(time_step, last_action, core))

    def state_after(
        self, time_step: types.TimeStep, action: types.Nest, state: CoreState
    ) -> CoreState:
        """Returns the core state after T rows and the T actions taken in them."""
        last_action, core = self._split(state)
        if self.network.last_action:
            last_action = nest.map_structure(
                lambda *leaves: torch.cat(leaves)[:-1],
                last_action,
                self._taken(time_step, action),
            )
        _, core = self.network.through_core(time_step, last_action, core)
        row, taken = nest.map_structure(lambda leaf: leaf[-1], (time_step, action))
        return self.remember(row, taken, core)

    def differences(
        self,
        output: Any,
        recorded: types.AgentOutput,
        epsilon: float,
        temperature: float,
    ) -> torch.Tensor:
        """Returns the difference of recorded rows from those of an unroll: [T, B].

        It is the largest |log mu - recorded log mu| / max(1, |recorded log mu|) in nats
        over the distribution's elements, because rounding errors scale likewise.

        Args:
          output: the result of `unroll`, [T+1, B, ...].
          recorded: the results of `step`, [T, B, ...].
          epsilon, temperature: those of `step`.
        """
        normalise = self.distribution.normalise
        logits = self.distribution.mix(output.policy_logits[:-1], epsilon, temperature)
        expected = normalise(recorded.policy_logits)
        scale = expected.abs().clamp(min=1.0)
        return ((normalise(logits) - expected).abs() / scale).amax(-1)

    def replace_action(self, state: CoreState, action: types.Nest) -> CoreState:
        """Returns `state` with `action` as the last one."""
        if not self.network.last_action:
            return state
        leaves = nest.flatten(action)
        return (*leaves, *state[len(leaves) :])

    def remember(
        self, time_step: types.TimeStep, action: types.Nest, core: CoreState
    ) -> CoreState:
        """Returns the core state after the action of one row, [B, ...].

        Args:
          core: the recurrent state after the row.
        """
        if not self.network.last_action:
            return core
        return (*nest.flatten(self._taken(time_step, action)), *core)

    def _taken(
        self, time_step: types.TimeStep, action: types.Nest
    ) -> network_lib.LastAction:
        """Returns what the network sees of the actions of T rows, or of one."""
        acted = time_step.acts
        if isinstance(self._last.acted, tuple):
            acted = ()
        elif isinstance(acted, tuple):  # a policy is only asked when it is to act
            acted = torch.ones_like(time_step.step_type, dtype=torch.bool)
        else:
            acted = acted[: len(nest.flatten(action)[0])]
        return network_lib.LastAction(action, acted)

    def _split(
        self, state: CoreState
    ) -> tuple[network_lib.LastAction | None, CoreState]:
        """Returns the last action, [1, B, ...] or None, and the recurrent state."""
        if not self.network.last_action:
            return None, state
        leaves = iter(state)
        last_action: network_lib.LastAction = nest.map_structure(
            lambda spec: next(leaves).unsqueeze(0), self._last
        )
        return last_action, tuple(leaves)


class QOutput(NamedTuple):
    """Outputs of a Q-network for each row: [T+1, B, A], [T+1, B]."""

    q_values: torch.Tensor  # MASKED where an action is not allowed
    baseline: torch.Tensor  # the largest of them


class QAgent(Agent):
    """Agent that acts greedily by action values, with epsilon in between.

    It records what an actor-critic agent records: the action, the logits of the
    epsilon-greedy policy, and the largest value as the baseline.
    """

    outputs_name = "q_values"
    output_type: Any = QOutput

    def policy_logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Returns the logits of the greedy policy."""
        return q_network.greedy_logits(outputs)

    def describe(self, outputs: torch.Tensor) -> list[base.Element]:
        """Describes the values of the allowed actions of one row, [A]."""
        (element,) = self.distribution.describe(outputs)
        pairs = zip(element.labels, outputs.tolist(), strict=True)
        there = [pair for pair in pairs if pair[1] > 0.5 * categorical.MASKED]
        labels, values = zip(*there, strict=True)
        return [base.Element("Q", labels, values, are_probabilities=False)]

    def differences(
        self,
        output: Any,
        recorded: types.AgentOutput,
        epsilon: float,
        temperature: float,
    ) -> torch.Tensor:
        """Returns |value - recorded value| / max(1, |recorded value|): [T, B].

        Logits are not compared: two almost equal values may change places.
        """
        expected = recorded.baseline
        return (output.baseline[:-1] - expected).abs() / expected.abs().clamp(min=1.0)


class QuantileOutput(NamedTuple):
    """Outputs of a quantile network for each row."""

    q_values: torch.Tensor  # [T+1, B, A], MASKED where an action is not allowed
    baseline: torch.Tensor  # [T+1, B], the largest of them
    quantiles: torch.Tensor  # [T+1, B, N, A] of the returns, at `fractions`
    fractions: torch.Tensor  # [T+1, B, N], from 0 to 1


class QuantileAgent(QAgent):
    """Q agent whose learner also sees quantiles of the returns.

    Its values are the same in `step` and in `unroll`: they are those of fixed
    fractions, while the quantiles may be at drawn ones.
    """

    output_type = QuantileOutput


def _one_row(time_step: types.TimeStep) -> types.TimeStep:
    """Adds a leading axis: [B, ...] -> [1, B, ...]."""
    if isinstance(time_step.observation, torch.Tensor):  # called at every step
        step_type, reward, discount, observation, acts = time_step
        return types.TimeStep(
            step_type.unsqueeze(0),
            reward.unsqueeze(0),
            discount.unsqueeze(0),
            observation.unsqueeze(0),
            acts if isinstance(acts, tuple) else acts.unsqueeze(0),
        )
    rows: types.TimeStep = nest.map_structure(lambda x: x.unsqueeze(0), time_step)
    return rows


def make(config: Any, environment: specs.EnvironmentSpec) -> Agent:
    """Makes the agent that `config` describes, initialised, on the CPU.

    Raises:
      BadInput: the network does not fit the environment.
    """
    distribution = joint.from_spec(environment.action)
    # A custom mask goes first. With several tasks it is padded with zeros, so that it
    # also forbids the actions that a task does not have.
    mask = config.agent.action_mask_key or environment.action_mask
    environment = dataclasses.replace(environment, action_mask=mask)
    if derived.learns_action_values(config):
        _check_discrete(environment.action, config.algorithm)
        if environment.privileged:
            alone = "privileged" if config.environment.privileged else "shows_state"
            default = base_config.BY_NAME[f"environment.{alone}"].default
            raise errors.BadInput(
                f"environment.{alone} is for values that the policy does not depend on,"
                f" and algorithm={config.algorithm} acts by its values. Set"
                f" config.environment.{alone}={default!r}, or config.algorithm=impact."
            )
    kind, make_network = _KINDS.get(config.algorithm, (Agent, network_lib.Network))
    network = make_network(config, environment, distribution)
    return kind(network, distribution, environment.action, environment.waits)


# Agents and networks of the algorithms that learn action values.
_KINDS: dict[str, tuple[type[Agent], type[network_lib.Network]]] = {
    "dqn": (QAgent, q_network.QNetwork),
    "iqn": (QuantileAgent, quantile_network.QuantileNetwork),
}


def _check_discrete(action: specs.ActionSpec, algorithm: str) -> None:
    if isinstance(action, specs.DiscreteSpec):
        return
    kind = type(action).__name__.removesuffix("Spec")
    raise errors.BadInput(
        f"algorithm={algorithm} needs one Discrete space of actions, and the action of"
        f" this environment is a {kind}. Set config.algorithm to impact or vtrace."
    )
