"""Handles `impala-ctl` requests: reads and overrides live hyperparameters."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

from impala_mp import errors, specs
from impala_mp.config import fields, live_hyperparameters, schedules
from impala_mp.storage import mailbox
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
        """Answers all pending requests."""
        self._agent_steps = agent_steps
        for question in self._mailbox.take():
            try:
                answer = {"lines": self._answer(question.message)}
            except errors.BadInput as error:
                answer = {"refused": str(error)}
            self._mailbox.answer(question, answer)

    def _answer(self, message: Any) -> list[str]:
        match message:
            case {"get": list(names)}:
                _check_names(names)
                return [self._describe(n) for n in names or live_hyperparameters.NAMES]
            case {"set": dict(values)}:
                for name, value in values.items():
                    _check_names([name])
                    live_hyperparameters.check_value(name, value)
                    if name == "epsilon":
                        specs.check_epsilon(self._action, value)
                return self._change(values)
            case {"unset": list(names)}:
                _check_names(names)
                return self._change(dict.fromkeys(names))
        raise errors.BadInput(f"{message!r} is not a request. Use get, set or unset.")

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
        with open(self._log, "a") as file:
            file.write(json.dumps(line) + "\n")
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
    control: control_block.ControlBlock, overrides: dict[str, float]
) -> list[str]:
    """Restores the overrides of a checkpoint; returns a sentence for each."""
    control.override(dict(overrides))
    return [
        f"{name} stays {value:.6g}, as set by impala-ctl. To return to the config's"
        f" value: impala-ctl DIR unset {name}."
        for name, value in overrides.items()
    ]


def _check_names(names: list[Any]) -> None:
    for name in names:
        if name not in live_hyperparameters.NAMES:
            hint = fields.nearest(str(name), list(live_hyperparameters.NAMES))
            raise errors.BadInput(
                f"there is no live value {name!r}. There are"
                f" {', '.join(live_hyperparameters.NAMES)}.{hint}"
            )
