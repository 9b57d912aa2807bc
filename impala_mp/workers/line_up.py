"""Policies that play one environment together, each its own columns."""

from collections.abc import Sequence
from typing import Any, Protocol

from impala_mp import types
from impala_mp.environments import vector


class Player(Protocol):
    """Policy that acts on one row after the other, as `agent.Agent` does."""

    def initial_state(self, count: int) -> Any:
        """Returns the core state of `count` columns at the start of an episode."""

    def step(
        self, time_step: types.TimeStep, state: Any, **settings: Any
    ) -> tuple[types.AgentOutput, Any]:
        """Acts on one row; returns the output and the next core state."""


class LineUp:
    """One policy made of several: its actions are a tuple of theirs."""

    def __init__(
        self, policies: Sequence[Player], environment: vector.VectorEnvironment
    ) -> None:
        """Takes the policies in the order of the environment's."""
        self._policies, self._environment = policies, environment

    def initial_state(self, count: int) -> list[Any]:
        """Returns the state of each policy; `count` is the environment's."""
        return [
            policy.initial_state(columns)
            for policy, columns in zip(
                self._policies, self._environment.num_columns, strict=True
            )
        ]

    def step(
        self, time_step: types.TimeStep, state: list[Any], **settings: Any
    ) -> tuple[types.AgentOutput, list[Any]]:
        """Acts on one row of all columns."""
        pairs = [
            policy.step(own, mine, **settings)
            for policy, own, mine in zip(
                self._policies, self._environment.split(time_step), state, strict=True
            )
        ]
        action = tuple(output.action for output, _ in pairs)
        return types.AgentOutput(action, None, None), [after for _, after in pairs]


def of(policies: Sequence[Player], environment: vector.VectorEnvironment) -> Any:
    """Returns what plays the environment: the policy itself if it is the only one."""
    return policies[0] if len(policies) == 1 else LineUp(policies, environment)
