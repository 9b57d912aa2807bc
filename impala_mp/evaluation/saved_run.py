"""A run read from its folder: its config, and a checkpoint of each policy."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from impala_mp import errors, seeding, specs
from impala_mp.algorithms import action_returns
from impala_mp.config import derived, policies as policies_lib
from impala_mp.environments import factory, members, vector
from impala_mp.networks import agent as agent_lib
from impala_mp.storage import checkpoint, trust as trust_lib, workdir
from impala_mp.workers import memory_limit

Restorer = Callable[[torch.Tensor], torch.Tensor]


class SavedRun:
    """Config and a checkpoint of each policy; damaged files are reported on stderr."""

    def __init__(
        self,
        path: str,
        trust: bool = False,
        config: Any = None,
        which: str | int = "newest",
        policy: str = "",
    ) -> None:
        """Reads the run in `path`.

        Args:
          trust: True loads code that this user has not trained.
          config: of the run; None: read from its folder.
          which: newest, best, or the update of a checkpoint.
          policy: one of several; "": all.

        Raises:
          BadInput: there is no run, no valid checkpoint, or its code is not trusted.
        """
        self.path = path
        if config is None:
            config = workdir.read_config(path)
            trust_lib.admit(config, path, trust)
        self.config = config
        folder = workdir.Workdir(path)
        self.policies = _chosen(path, folder.names_of_policies(), policy)
        if len(self.policies) > 1 and which != checkpoint.NEWEST:
            raise errors.BadInput(
                f"{path} has several policies, whose checkpoints have different"
                f" numbers, and {which!r} is named. Take the newest."
            )
        states = [_load(path, folder.checkpoints_of(x), which) for x in self.policies]
        self._states = dict(zip(self.policies, states, strict=True))
        try:
            learned = [state["learner"] for state in states]
            self.agent_steps, self.updates = (
                sum(int(each[name]) for each in learned)
                for name in ("agent_steps", "updates")
            )
            for each in learned:
                each["parameters"].items()
            ends = [str(state.get("stopped", "")) for state in states]
            self.stopped = next(filter(None, ends), "")  # why, or ""
            self.time_secs = max(float(x.get("time_secs", 0.0)) for x in states)
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
        settings, arguments = self.evaluation_environment, {"render_mode": render_mode}
        if self.num_members == 1:
            return factory.make(settings, num_envs, training=False, **arguments)
        return members.make(
            self.config, settings, num_envs, training=False, task=task, **arguments
        )

    def agent(self) -> agent_lib.Agent:
        """Returns the agent of the only policy.

        Raises:
          BadInput: there are several, or it does not fit the checkpoint.
        """
        if len(self.policies) > 1:
            raise errors.BadInput(
                f"{self.path} has the policies {', '.join(self.policies)}. Name one of"
                " them with --policy, where the command has it."
            )
        (made,) = self.agents()
        return made

    def agents(self, made: Sequence[agent_lib.Agent] = ()) -> list[agent_lib.Agent]:
        """Returns the agents in the order of the environment's policies.

        Args:
          made: agents of the run, whose parameters are replaced; (): new ones.

        Raises:
          BadInput: one does not fit its checkpoint.
        """
        if not made:
            seeding.seed_globals(seeding.sequence(self.config.seed, "main"))
            made = [_make(config, spec) for config, spec in self._layouts()]
        for name, policy in zip(self.names, made, strict=True):
            try:
                load_parameters(policy, self._states[name])
            except (RuntimeError, TypeError) as error:
                raise errors.BadInput(
                    f"the checkpoint in {self.path} is of another network than its"
                    " config.json and environment describe"
                    f" ({_first_difference(error)}). Restore config.json, or the"
                    " version of the environment that was trained."
                ) from error
        return list(made)

    @property
    def num_members(self) -> int:
        """Members of a population that were loaded; 0 without one."""
        return len(self.policies) if self.config.population.size else 0

    def check_plays_alone(self, policy: str) -> None:
        """Refuses one of several policies that play together.

        Raises:
          BadInput: `policy` is one, and not a member of a population.
        """
        if policy and not self.config.population.size:
            raise errors.BadInput(
                f"--policy={policy} plays no game alone: {self.path} has no population."
                " Leave it out."
            )

    @property
    def names(self) -> list[str]:
        """Policies in the order of the environment's and of `agents`."""
        if len(self.policies) == 1:
            return list(self.policies)
        return list(self._specs)

    @property
    def num_players(self) -> int:
        """Players of a game that several policies play; else 1."""
        if not any(self.policies) or self.num_members:
            return 1
        return sum(len(spec.players) for spec in self._specs.values())

    def configs(self) -> list[Any]:
        """Returns the config of each policy."""
        if self.policies == ("",):
            return [self.config]
        return [config for config, _ in self._layouts()]

    @functools.cached_property
    def _specs(self) -> dict[str, specs.EnvironmentSpec]:
        return members.probe(self.config)

    def _layouts(self) -> list[tuple[Any, specs.EnvironmentSpec]]:
        """Returns the config and the spec of each policy."""
        found = self._specs
        counts = {name: len(spec.players) for name, spec in found.items()}
        pairs = zip(
            policies_lib.of_run(self.config, counts), found.items(), strict=True
        )
        return [
            (config, spec) for config, (name, spec) in pairs if name in self.policies
        ]

    def seed(self) -> np.random.SeedSequence:
        """Returns the seed of all games that this run plays."""
        return seeding.sequence(self.config.seed, "evaluator")


def restorer(config: Any) -> Restorer:
    """Returns a function that gives an agent's values in units of reward."""
    if derived.learns_action_values(config) and config.dqn.rescaling == "hyperbolic":
        return action_returns.restore
    return lambda values: values


def _chosen(path: str, there: tuple[str, ...], policy: str) -> tuple[str, ...]:
    """Returns the policies to load.

    Raises:
      BadInput: there is no policy of that name.
    """
    if policy and policy not in there:
        names = ", ".join(there) if any(there) else "a single one, without a name"
        raise errors.BadInput(
            f"{path} has no policy {policy!r}. It has {names}. Name one of them."
        )
    return (policy,) if policy else there


def _load(path: str, folder: str, which: str | int) -> dict[str, Any]:
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


def _make(config: Any, spec: specs.EnvironmentSpec) -> agent_lib.Agent:
    """Makes the agent. Raises BadInput if its network does not fit into memory."""
    with memory_limit.limited_by_memory():
        return agent_lib.make(config, spec)


def _first_difference(error: Exception) -> str:
    """Returns the first of the differences in torch's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)].rstrip(".") if lines else "no reason"


def load_parameters(policy: agent_lib.Agent, state: dict[str, Any]) -> None:
    """Loads the parameters of a checkpoint into `policy`."""
    policy.network.load_state_dict(state["learner"]["parameters"])
