"""A run as it lies in its folder: its config, and the newest of its checkpoints."""

import sys
from typing import Any

import numpy as np

from impala_mp import (
    agent,
    checkpoint,
    environments,
    errors,
    evaluator,
    seeding,
    specs,
    workdir,
)
from impala_mp.environments import vector


class SavedRun:
    """Reads at once; what of it is damaged is told on stderr."""

    def __init__(self, path: str) -> None:
        """Raises BadInput if there is no run in `path`, or no sound checkpoint."""
        self.path = path
        self.config = workdir.read_config(path)
        self._state = _newest(path)
        self.agent_steps: int = self._state["learner"]["agent_steps"]
        self.updates: int = self._state["learner"]["updates"]

    def environment(
        self, num_envs: int, render_mode: str | None = None
    ) -> vector.VectorEnvironment:
        """Copies of the run's environment that play full games."""
        return environments.make(
            self.config.environment, num_envs, training=False, render_mode=render_mode
        )

    def agent(
        self, spec: specs.EnvironmentSpec, policy: agent.Agent | None = None
    ) -> agent.Agent:
        """The run's agent (`policy`, if it is there already) with these parameters."""
        policy = policy or agent.make(self.config, spec)
        evaluator.load_parameters(policy, self._state)
        return policy

    def greedy(self, choice: bool | None) -> bool:
        """`choice`, or else what the config says of evaluations."""
        return bool(self.config.evaluation.greedy if choice is None else choice)

    def seed(self) -> np.random.SeedSequence:
        """Of all that is played with it."""
        return seeding.sequence(self.config.seed, "evaluator")


def _newest(path: str) -> dict[str, Any]:
    folder = workdir.Workdir(path).checkpoints
    try:
        state = checkpoint.load_newest(
            folder, lambda text: print(text, file=sys.stderr)
        )
    except checkpoint.Damaged as error:
        raise errors.BadInput(str(error)) from error
    if state is None:
        raise errors.BadInput(
            f"{path} has no checkpoint yet: train first, or name another run."
        )
    return state
