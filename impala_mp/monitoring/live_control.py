"""Handles `impala-ctl` requests: reads and overrides live hyperparameters."""

import dataclasses
import json
import os
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from impala_mp import errors, specs
from impala_mp.config import fields, live_hyperparameters, population, schedules
from impala_mp.storage import files, mailbox
from impala_mp.transport import control_block, shared as shared_lib

POPULATION = "population"  # a source of values


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """Live values of one policy, and what they may be."""

    name: str  # "" for a single one
    control: control_block.ControlBlock
    live: live_hyperparameters.LiveHyperparameters
    action: specs.ActionSpec
    of_population: tuple[str, ...] = ()  # values that the population sets

    def label(self, name: str) -> str:
        """Returns what the user calls one of its values."""
        return f"{self.name}/{name}" if self.name else name

    def source(self, name: str) -> str:
        """Returns where a value comes from."""
        if name in self.control.overrides():
            return POPULATION if name in self.of_population else "impala-ctl"
        return "schedule" if name in self.live.texts else "config"

    def describe(self, name: str) -> str:
        """Returns `name = value (source)`."""
        source = self.source(name)
        if source == "schedule":
            source += f" {self.live.texts[name]}"
        return f"{self.label(name)} = {self.control.get(name):.6g} ({source})"

    def check(self, name: str, value: float) -> None:
        """Refuses a value that is out of bounds, or without an effect.

        Raises:
          BadInput: with the name and the cure.
        """
        live_hyperparameters.check_value(name, value)
        if name in self.live.unread:
            read = [n for n in live_hyperparameters.NAMES if n not in self.live.unread]
            raise errors.BadInput(
                f"{self.label(name)} has no effect on this run, which learns action"
                f" values. Set one of {', '.join(map(self.label, read))}."
            )
        if name == "epsilon":
            specs.check_epsilon(self.action, value)

    def check_unset(self, name: str) -> None:
        """Refuses to unset a value that the population sets.

        Raises:
          BadInput: with the name and the cure.
        """
        if name in self.of_population:
            raise errors.BadInput(
                f"{self.label(name)} is set by the population, and the config has no"
                f" value for it. Set one: impala-ctl DIR set {self.label(name)}=VALUE."
            )

    def check_order(self, values: dict[str, float | None], agent_steps: float) -> None:
        """Refuses thresholds that do not fit together, once `values` are changed."""
        merged = {**self.control.overrides(), **values}
        constants = {
            name: schedules.constant(value)
            for name, value in merged.items()
            if value is not None
        }
        live_hyperparameters.check_order(
            {**self.live.schedules, **constants}, agent_steps
        )


def of(shared: shared_lib.Shared) -> Policy:
    """Returns the live values of a policy in shared memory."""
    return Policy(
        shared.policy,
        shared.control,
        shared.live,
        shared.environment.action,
        tuple(population.ranges(shared.whole)) if shared.population else (),
    )


_Target = tuple[Policy, str]  # a live value of one policy


class LiveControl:
    """The supervisor's side of `impala-ctl`; a request has `get`, `set` or `unset`.

    With several policies a name is POLICY/NAME, or NAME for all of them.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        path: str,
        report: Callable[[str], None],
    ) -> None:
        self._policies, self._report = policies, report
        self._mailbox = mailbox.Mailbox(path)
        self._log = os.path.join(path, "changes.jsonl")
        self._agent_steps = 0
        self._by_policy: Mapping[str, float] = {}

    def tick(
        self, agent_steps: int, by_policy: Mapping[str, float] | None = None
    ) -> None:
        """Answers all pending requests, at this progress of the run and its policies.

        Raises:
          OSError: an answer could not be written; the other requests have theirs.
        """
        self._agent_steps, failed = agent_steps, None
        self._by_policy = by_policy or {}
        for question in self._mailbox.take():
            try:
                answer = {"lines": self._answer(question.message)}
            except errors.BadInput as error:
                answer = {"refused": str(error)}
            try:
                self._mailbox.answer(question, answer)
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def _answer(self, message: Any) -> list[str]:
        match message:
            case {"get": list(names)}:
                targets = self._targets(names or list(live_hyperparameters.NAMES))
                return [policy.describe(name) for policy, name in targets]
            case {"set": dict(values)}:
                changes: dict[_Target, float | None] = {}
                for text, value in values.items():
                    targets = self._targets([text])
                    # A value of all policies is for those that read it.
                    reads = [x for x in targets if x[1] not in x[0].live.unread]
                    for policy, name in reads or targets:
                        _check_number(name, value)
                        policy.check(name, value)
                        changes[policy, name] = value
                return self._change(changes)
            case {"unset": list(names)}:
                targets = self._targets(names)
                for policy, name in targets:
                    policy.check_unset(name)
                return self._change(dict.fromkeys(targets))
        raise errors.BadInput(
            f"{reprlib.repr(message)} is not a request. Use get, set or unset."
        )

    def _targets(self, texts: list[Any]) -> list[_Target]:
        """Returns the values that are meant, policy by policy.

        Raises:
          BadInput: there is none of that name.
        """
        known = list(live_hyperparameters.NAMES)
        if len(self._policies) > 1:
            known += [p.label(name) for p in self._policies for name in known]
        for text in texts:
            if text not in known:
                is_text = isinstance(text, str)
                hint = fields.nearest(text[:100], known) if is_text else ""
                raise errors.BadInput(
                    f"there is no live value {reprlib.repr(text)}. There are"
                    f" {', '.join(known)}.{hint}"
                )
        return [
            (policy, name)
            for text in texts
            for policy in self._policies
            for name in live_hyperparameters.NAMES
            if text in (name, policy.label(name))
        ]

    def set_for_population(self, policy: str, values: dict[str, float]) -> None:
        """Sets live values of one policy, which were chosen within their bounds."""
        (own,) = (each for each in self._policies if each.name == policy)
        before = {name: own.control.get(name) for name in values}
        own.control.override(dict(values))
        for name, value in before.items():
            self._log_change(own, name, value, POPULATION)

    def _change(self, changes: dict[_Target, float | None]) -> list[str]:
        """Makes all of the changes or none of them."""
        if self._policies[0].control.stopping:
            raise errors.BadInput("the run is stopping and accepts no changes.")
        by_policy = {
            policy: {name: v for (p, name), v in changes.items() if p is policy}
            for policy in self._policies
        }
        for policy, values in by_policy.items():
            steps = self._by_policy.get(policy.name, self._agent_steps)
            policy.check_order(values, steps)
        before = {(policy, name): policy.control.get(name) for policy, name in changes}
        for policy, values in by_policy.items():
            if values:
                policy.control.override(values)
        self._policies[0].control.ask_for_save()
        return [self._log_change(*target, value) for target, value in before.items()]

    def _log_change(
        self, policy: Policy, name: str, before: float, by: str = "impala-ctl"
    ) -> str:
        after, label = policy.control.get(name), policy.label(name)
        sentence = f"{label} changes from {before:.6g} to {after:.6g} ({by})."
        if name not in policy.control.overrides():
            by = policy.source(name)
        self._report(sentence)
        line = {
            "time": time.time(),
            "agent_steps": self._agent_steps,
            "name": label,
            "from": before,
            "to": after,
            "by": by,
        }
        try:
            files.append(self._log, json.dumps(line) + "\n")
        except OSError as error:
            self._report(f"{error}: the change is not logged, and is valid.")
        return sentence

    def not_from_config(self) -> list[str]:
        """Returns `name = value (source)` of values that were scheduled or set."""
        return [
            policy.describe(name)
            for policy in self._policies
            for name in live_hyperparameters.NAMES
            if policy.source(name) not in ("config", POPULATION)
        ]


def restore(
    policy: Policy,
    overrides: dict[str, float],
    changes: Sequence[str] = (),
) -> list[str]:
    """Restores the overrides of a checkpoint; returns a sentence for each.

    A field in `changes` has a new value in the config, which its override would hide.
    """
    changed = {
        name.rpartition(".")[2]
        for name in changes
        if not name.startswith("policies.") or name.split(".")[1] == policy.name
    }
    overrides = {k: value for k, value in overrides.items() if k not in changed}
    policy.control.override(dict(overrides))
    by_hand = {k: v for k, v in overrides.items() if k not in policy.of_population}
    return [
        f"{policy.label(name)} stays {value:.6g}, as set by impala-ctl. To return to"
        f" the config's value: impala-ctl DIR unset {policy.label(name)}."
        for name, value in by_hand.items()
    ]


def _check_number(name: str, value: Any) -> None:
    """Refuses what is no number; a float may be inf, or break a field's rule."""
    if not (isinstance(value, float) or files.is_number(value)):
        raise errors.BadInput(f"{name} ({reprlib.repr(value)}) must be a number.")
