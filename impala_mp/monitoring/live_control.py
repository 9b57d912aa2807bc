"""Handles `impala-ctl` requests: reads and overrides live hyperparameters."""

import json
import os
import reprlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from impala_mp import errors, specs
from impala_mp.config import fields, live_hyperparameters, schedules
from impala_mp.storage import files, mailbox
from impala_mp.transport import control_block


class LiveControl:
    """The supervisor's side of `impala-ctl`; a request has `get`, `set` or `unset`."""

    def __init__(
        self,
        control: control_block.ControlBlock,
        live: live_hyperparameters.LiveHyperparameters,
        path: str,
        report: Callable[[str], None],
        action: specs.ActionSpec,
    ) -> None:
        """Refuses values of epsilon that `action` cannot take."""
        self._action = action
        self._control, self._live, self._report = control, live, report
        self._mailbox = mailbox.Mailbox(path)
        self._log = os.path.join(path, "changes.jsonl")
        self._agent_steps = 0

    def tick(self, agent_steps: int) -> None:
        """Answers all pending requests.

        Raises:
          OSError: an answer could not be written; the other requests have theirs.
        """
        self._agent_steps, failed = agent_steps, None
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
                _check_names(names)
                return [self._describe(n) for n in names or live_hyperparameters.NAMES]
            case {"set": dict(values)}:
                for name, value in values.items():
                    _check_names([name])
                    _check_number(name, value)
                    live_hyperparameters.check_value(name, value)
                    self._check_effect(name)
                    if name == "epsilon":
                        specs.check_epsilon(self._action, value)
                return self._change(values)
            case {"unset": list(names)}:
                _check_names(names)
                return self._change(dict.fromkeys(names))
        raise errors.BadInput(
            f"{reprlib.repr(message)} is not a request. Use get, set or unset."
        )

    def _check_effect(self, name: str) -> None:
        if name in self._live.unread:
            read = [n for n in live_hyperparameters.NAMES if n not in self._live.unread]
            raise errors.BadInput(
                f"{name} has no effect on this run, which learns action values. Set one"
                f" of {', '.join(read)}."
            )

    def _change(self, values: dict[str, float | None]) -> list[str]:
        """Changes all of `values` or none of them."""
        if self._control.stopping:
            raise errors.BadInput("the run is stopping and accepts no changes.")
        merged = {**self._control.overrides(), **values}
        constants = {
            name: schedules.constant(value)
            for name, value in merged.items()
            if value is not None
        }
        live_hyperparameters.check_order(
            {**self._live.schedules, **constants}, self._agent_steps
        )
        before = {name: self._control.get(name) for name in values}
        self._control.override(values)
        self._control.ask_for_save()
        return [self._log_change(name, before[name]) for name in values]

    def _log_change(self, name: str, before: float) -> str:
        after = self._control.get(name)
        sentence = f"{name} changes from {before:.6g} to {after:.6g} (impala-ctl)."
        self._report(sentence)
        line = {
            "time": time.time(),
            "agent_steps": self._agent_steps,
            "name": name,
            "from": before,
            "to": after,
            "by": self._source(name),
        }
        try:
            files.append(self._log, json.dumps(line) + "\n")
        except OSError as error:
            self._report(f"{error}: the change is not logged, and is valid.")
        return sentence

    def _source(self, name: str) -> str:
        if name in self._control.overrides():
            return "impala-ctl"
        return "schedule" if name in self._live.texts else "config"

    def _describe(self, name: str) -> str:
        source = self._source(name)
        if source == "schedule":
            source += f" {self._live.texts[name]}"
        return f"{name} = {self._control.get(name):.6g} ({source})"

    def not_from_config(self) -> list[str]:
        """Returns `name = value (source)` of values that are not the config's."""
        return [
            self._describe(name)
            for name in live_hyperparameters.NAMES
            if self._source(name) != "config"
        ]


def restore(
    control: control_block.ControlBlock,
    overrides: dict[str, float],
    changes: Sequence[str] = (),
) -> list[str]:
    """Restores the overrides of a checkpoint; returns a sentence for each.

    A field in `changes` has a new value in the config, which its override would hide.
    """
    changed = {name.rpartition(".")[2] for name in changes}
    overrides = {k: value for k, value in overrides.items() if k not in changed}
    control.override(dict(overrides))
    return [
        f"{name} stays {value:.6g}, as set by impala-ctl. To return to the config's"
        f" value: impala-ctl DIR unset {name}."
        for name, value in overrides.items()
    ]


def _check_number(name: str, value: Any) -> None:
    """Refuses what is no number; a float may be inf, or break a field's rule."""
    if not (isinstance(value, float) or files.is_number(value)):
        raise errors.BadInput(f"{name} ({reprlib.repr(value)}) must be a number.")


def _check_names(names: list[Any]) -> None:
    known = list(live_hyperparameters.NAMES)
    for name in names:
        if name not in known:
            hint = fields.nearest(name[:100], known) if isinstance(name, str) else ""
            raise errors.BadInput(
                f"there is no live value {reprlib.repr(name)}. There are"
                f" {', '.join(known)}.{hint}"
            )
