"""Environments of a population, whose members play alone: in training, and together.

In training an actor has the environment of one member. In an evaluation all members
play at once, each its own copies, as if they were the players of a game.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from impala_mp import errors, nest, specs, types
from impala_mp.config import population
from impala_mp.environments import factory, vector


def probe(config: Any, environment: Any = None) -> dict[str, specs.EnvironmentSpec]:
    """Returns the specs of the run's environment by policy; "" is a single one.

    Args:
      environment: another one in place of `config.environment`.

    Raises:
      BadInput: it cannot be made, or is none for a population.
    """
    found = factory.probe_all(environment or config.environment)
    names = population.names(config)
    if not names:
        return found
    players = [player for spec in found.values() for player in spec.players]
    if len(players) > 1:
        raise errors.BadInput(
            f"population.size ({len(names)}) needs an environment of a single player,"
            f" and {config.environment.id!r} has {len(players)}. Set"
            " config.population.size=0, or name another environment."
        )
    return dict.fromkeys(names, *found.values())


class MembersEnvironment(vector.VectorEnvironment):
    """Copies of an environment for each member, dealt out in turn.

    Column c is played by member c, modulo their number. Members whose copies take seeds
    begin with the same ones. Observations and actions are tuples, with the columns of
    each member.
    """

    def __init__(self, inner: vector.VectorEnvironment, names: Sequence[str]) -> None:
        """Takes as many copies for each member of `names`."""
        self._inner, self._names = inner, tuple(names)
        self.num_envs, self.numbers = inner.num_envs, inner.numbers
        self.specs = inner.specs * len(self._names)

    def _tuple(self, time_step: types.TimeStep) -> types.TimeStep:
        observation = tuple(self._columns(time_step.observation))
        return time_step._replace(observation=observation)

    def _columns(self, rows: types.Nest) -> list[types.Nest]:
        """Returns the rows of each member."""
        count = len(self._names)
        return [
            nest.map_structure(lambda leaf, k=k: leaf[k::count], rows)  # type: ignore[misc]
            for k in range(count)
        ]

    def reset(self, seeds: Sequence[int]) -> types.TimeStep:
        count = len(self._names)
        same = [seed for seed in seeds[::count] for _ in range(count)]
        return self._tuple(self._inner.reset(same))

    def step(self, action: types.Nest) -> tuple[types.TimeStep, types.EpisodeEnd]:
        together = nest.map_structure(
            lambda *leaves: np.stack(leaves, 1).reshape(-1, *leaves[0].shape[1:]),
            *action,
        )
        time_step, ended = self._inner.step(together)
        return self._tuple(time_step), ended

    def num_episodes(self, episodes: int) -> int:
        return episodes * len(self._names)

    # Policies.

    @property
    def players(self) -> tuple[str, ...]:
        return self._names

    @property
    def policies(self) -> tuple[str, ...]:
        return self._names

    @property
    def num_columns(self) -> list[int]:
        return [self.num_envs // len(self._names)] * len(self._names)

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(member, 0) for member in range(len(self._names))]

    def split(self, time_step: types.TimeStep) -> list[types.TimeStep]:
        count = len(self._names)
        return [
            types.TimeStep(
                time_step.step_type[k::count],
                time_step.reward[k::count],
                time_step.discount[k::count],
                own,
            )
            for k, own in enumerate(time_step.observation)
        ]

    # The rest is passed to the environment.

    @property
    def unwrapped(self) -> Any:
        return self._inner.unwrapped

    @property
    def draws(self) -> bool:
        return self._inner.draws

    def frame(self) -> np.ndarray:
        return self._inner.frame()

    def close(self) -> None:
        self._inner.close()


def make(
    config: Any, environment: Any, num_envs: int, **arguments: Any
) -> vector.VectorEnvironment:
    """Makes the environment in which all policies of a run play, as `factory.make`.

    There are `num_envs` copies for each member of a population.
    """
    names = population.names(config)
    made = factory.make(environment, num_envs * max(1, len(names)), **arguments)
    return MembersEnvironment(made, names) if names else made
