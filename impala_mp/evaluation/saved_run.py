"""A run read from its folder: its config and its newest checkpoint."""

import os
import sys
from typing import Any

import numpy as np

from impala_mp import errors, seeding, specs
from impala_mp.config import derived
from impala_mp.environments import factory, vector
from impala_mp.networks import agent
from impala_mp.storage import checkpoint, trust as trust_lib, workdir
from impala_mp.workers import memory_limit


class SavedRun:
    """Config and a checkpoint of a run; damaged files are reported on stderr."""

    def __init__(
        self,
        path: str,
        trust: bool = False,
        config: Any = None,
        which: str | int = "newest",
    ) -> None:
        """Reads the run in `path`.

        Args:
          trust: True loads code that this user has not trained.
          config: of the run; None: read from its folder.
          which: newest, best, or the update of a checkpoint.

        Raises:
          BadInput: there is no run, no valid checkpoint, or its code is not trusted.
        """
        self.path = path
        if config is None:
            config = workdir.read_config(path)
            trust_lib.admit(config, path, trust)
        self.config = config
        self._state = _load(path, which)
        try:
            learned = self._state["learner"]
            self.agent_steps, self.updates = (
                int(learned[name]) for name in ("agent_steps", "updates")
            )
            learned["parameters"].items()
            self.stopped = str(self._state.get("stopped", ""))  # why, or ""
            self.time_secs = float(self._state.get("time_secs", 0.0))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise errors.BadInput(
                f"the checkpoint in {path} has no state of a learner. Name another run."
            ) from error

    @property
    def tasks(self) -> tuple[str, ...]:
        """Returns the suffixes of the tasks; "" if there is only one."""
        return derived.task_suffixes(self.config.environment)

    @property
    def evaluation_environment(self) -> Any:
        """Returns the settings of the environment that plays in evaluations."""
        return derived.evaluation_environment(self.config)

    def environment(
        self, num_envs: int, task: int = 0, render_mode: str | None = None
    ) -> vector.VectorEnvironment:
        """Makes copies of a task's environment that play full games.

        They draw the same global random numbers each time.
        """
        seeding.seed_globals(seeding.sequence(self.config.seed, "main", 1 + task))
        return factory.make(
            self.evaluation_environment,
            num_envs,
            training=False,
            render_mode=render_mode,
            task=task,
        )

    def agent(self, policy: agent.Agent | None = None) -> agent.Agent:
        """Returns the run's agent, or `policy` if given, with these parameters."""
        if policy is None:
            seeding.seed_globals(seeding.sequence(self.config.seed, "main"))
            spec = factory.probe(self.config.environment)
            policy = _make(self.config, spec)
        try:
            load_parameters(policy, self._state)
        except (RuntimeError, TypeError) as error:
            raise errors.BadInput(
                f"the checkpoint in {self.path} is of another network than its"
                " config.json and environment describe"
                f" ({_first_difference(error)}). Restore config.json, or the version"
                " of the environment that was trained."
            ) from error
        return policy

    def seed(self) -> np.random.SeedSequence:
        """Returns the seed of all games that this run plays."""
        return seeding.sequence(self.config.seed, "evaluator")


def _load(path: str, which: str | int) -> dict[str, Any]:
    folder = workdir.Workdir(path).checkpoints
    try:
        if which != checkpoint.NEWEST:
            return checkpoint.load(_place(path, folder, which))
        state = checkpoint.load_newest(
            folder, lambda text: print(text, file=sys.stderr)
        )
    except checkpoint.Damaged as error:
        raise errors.BadInput(str(error)) from error
    if state is not None:
        return state
    if checkpoint.names(folder):
        raise errors.BadInput(
            f"{path} has only its best checkpoint: name it with --checkpoint=best."
        )
    raise errors.BadInput(
        f"{path} has no checkpoint yet. Train first, or name another run."
    )


def _place(path: str, folder: str, which: str | int) -> str:
    """Returns the folder of a checkpoint other than the newest.

    Raises:
      BadInput: there is none; the text lists those that there are.
    """
    there = checkpoint.names(folder)
    if str(which) in there:
        return os.path.join(folder, str(which))
    raise errors.BadInput(
        f"{path} has no checkpoint {which!r}. It has {', '.join(there) or 'none yet'}."
        " Name one of them."
    )


def _make(config: Any, spec: specs.EnvironmentSpec) -> agent.Agent:
    """Makes the agent. Raises BadInput if its network does not fit into memory."""
    with memory_limit.limited_by_memory():
        return agent.make(config, spec)


def _first_difference(error: Exception) -> str:
    """Returns the first of the differences in torch's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)].rstrip(".") if lines else "no reason"


def load_parameters(policy: agent.Agent, state: dict[str, Any]) -> None:
    """Loads the parameters of a checkpoint into `policy`."""
    policy.network.load_state_dict(state["learner"]["parameters"])
