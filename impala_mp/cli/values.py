"""Values of flags as people write them: 1e6, 300k, 5M, yes, no, auto."""

import decimal
import re
from collections.abc import Callable

from impala_mp import errors
from impala_mp.config import base

_INTEGER = re.compile(r"([+-]?\d[\d_]*(?:\.\d+)?(?:[eE]\+?\d{1,2})?)([kKmMgG]?)")
_POWERS = {"": 0, "k": 3, "m": 6, "g": 9}
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def plain(argument: str, kind: Callable[[str], type | None]) -> str:
    """Returns a flag with its value as absl reads it.

    Args:
      argument: --NAME=VALUE; anything else is returned as it is.
      kind: the type of a flag's values, or None where it is not known.

    Raises:
      BadInput: the value is no whole number, and the flag needs one.
    """
    name, equals, value = argument.partition("=")
    if not name.startswith("-") or not equals:
        return argument
    name = name.lstrip("-")
    if value == "auto" and name.removeprefix("config.") in base.AUTOMATIC:
        value = "0"  # the fields of a config keep their types
    elif kind(name) is bool:
        value = _BOOLEANS.get(value.lower(), value)
    elif kind(name) is int:
        value = str(_whole(name, value))
    return f"--{name}={value}"


def _whole(name: str, value: str) -> int:
    found = _INTEGER.fullmatch(value.strip())
    if found:
        number = decimal.Decimal(found[1].replace("_", ""))
        number = number.scaleb(_POWERS[found[2].lower()])
        if number == number.to_integral_value():
            return int(number)
    raise errors.BadInput(
        f"--{name}={value}: a whole number is required, such as 300000, 300k, 1e6 or"
        " 5M."
    )
