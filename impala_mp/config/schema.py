"""Fields of the config: default, meaning and the rules for their values."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from impala_mp import errors


@dataclasses.dataclass(frozen=True)
class Rule:
    """Condition for the value of a field, and the words for it.

    A refusal reads: FIELD (VALUE) must be WORDS. `reason` follows the words and
    `example` follows the cure.
    """

    words: str
    holds: Callable[[Any], bool]
    reason: str = ""
    example: str = ""
    choices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Field:
    """One field; a `default` of {} takes any name."""

    name: str  # dotted
    default: Any
    meaning: str  # with the unit
    rules: tuple[Rule, ...] = ()
    operational: bool = False  # may change between two runs in the same folder
    changeable: bool = False  # may change by --change, which alters what is learned
    fixed: bool = False  # not changeable, in a group that is
    automatic: bool = False  # 0, or "auto" on the command line: calibrated
    live: bool = False  # may change in a running training
    scheduled_only: bool = False  # live, but no field: it has a schedule alone

    @property
    def short_name(self) -> str:
        """Part of the name after the last dot."""
        return self.name.rpartition(".")[2]

    @property
    def requirement(self) -> str:
        """Words for the values that are allowed; "" if every value of its type is."""
        if isinstance(self.default, bool):
            return "True or False"
        return " and ".join(rule.words for rule in self.rules)

    @property
    def choices(self) -> tuple[str, ...]:
        """Names that are allowed; () if the value is not one of a few names."""
        return next((rule.choices for rule in self.rules if rule.choices), ())

    def check(self, value: Any) -> None:
        """Refuses a value that breaks a rule.

        Raises:
          BadInput: with the field, its value, the rule and the cure.
        """
        rule = self.broken_rule(value)
        if rule:
            raise errors.BadInput(
                f"{self.name} ({value!r}) must be {rule.words}{rule.reason}. Set"
                f" config.{self.name}{rule.example}."
            )

    def broken_rule(self, value: Any) -> Rule | None:
        """Returns the first rule that `value` breaks, or None."""
        return next((rule for rule in self.rules if not rule.holds(value)), None)


@dataclasses.dataclass(frozen=True)
class Group:
    """Fields under one name; `meaning` holds for all of them."""

    name: str  # "": the top level
    meaning: str
    fields: tuple[Field, ...]
    operational: bool = False


def field(
    name: str,
    default: Any,
    meaning: str,
    *rules: Rule,
    at_least: float | None = None,
    above: float | None = None,
    between: tuple[float, float] | None = None,
    at_most: float | None = None,
    finite: bool = False,
    one_of: tuple[str, ...] = (),
    **flags: bool,
) -> Field:
    """Makes a field with `rules`, then the rules of the keywords in their order.

    `flags` are the booleans of Field.
    """
    found = list(rules)
    if at_least is not None:
        found.append(_at_least(at_least))
    if above is not None:
        found.append(_above(above))
    if between is not None:
        found.append(_between(*between))
    if at_most is not None:
        found.append(_at_most(at_most))
    if finite:
        found.append(number("finite", math.isfinite))
    if one_of:
        found.append(names(one_of))
    return Field(name, default, meaning, tuple(found), **flags)


def names(choices: tuple[str, ...], custom: bool = False) -> Rule:
    """Makes a rule that allows `choices`, and with `custom` a module:factory."""
    return Rule(
        f"one of {', '.join(choices)}{', or module:factory' if custom else ''}",
        lambda name: name in choices or custom and ":" in name,
        choices=choices,
    )


def number(words: str, holds: Callable[[float], bool], reason: str = "") -> Rule:
    """Makes a rule that only numbers can meet."""
    return Rule(words, lambda x: isinstance(x, (int, float)) and holds(x), reason)


def number_or_empty() -> Rule:
    """Makes a rule for a string that is empty or a finite number."""
    return Rule("empty or a finite number", _is_number_or_empty)


def _is_number_or_empty(text: str) -> bool:
    try:
        return not text or math.isfinite(float(text))
    except ValueError:
        return False


def positive_numbers() -> Rule:
    """Makes a rule for one or more finite numbers above 0."""
    return Rule("one or more finite numbers above 0", _are_positive)


def _are_positive(values: Any) -> bool:
    return bool(values) and all(
        isinstance(x, (int, float)) and 0.0 < x < math.inf for x in values
    )


def range_or_empty() -> Rule:
    """Makes a rule for no number, or two above 0 that ascend."""
    return Rule(
        "empty or two finite numbers above 0 that ascend",
        lambda x: not x or (len(x) == 2 and _are_positive(x) and x[0] < x[1]),
    )


def _at_least(low: float) -> Rule:
    return number(f"at least {low:g}", lambda x: x >= low)


def _above(low: float) -> Rule:
    return number(f"above {low:g}", lambda x: x > low)


def _between(low: float, high: float) -> Rule:
    return number(f"between {low:g} and {high:g}", lambda x: low <= x <= high)


def _at_most(high: float) -> Rule:
    return number(f"at most {high:,}", lambda x: x <= high)


def group(
    name: str,
    meaning: str,
    *fields: Field,
    operational: bool = False,
    changeable: bool = False,
) -> Group:
    """Makes a group, and adds its name to its fields' names.

    All fields of an operational or changeable group are so, but for fixed ones.
    """
    prefix = f"{name}." if name else ""
    whole = (
        dataclasses.replace(
            each,
            name=prefix + each.name,
            operational=operational or each.operational,
            changeable=(changeable or each.changeable) and not each.fixed,
        )
        for each in fields
    )
    return Group(name, meaning, tuple(whole), operational)
