"""--help: what a command does, its flags, and the fields of the config."""

import functools
import textwrap
from typing import Any

from absl import flags

from impala_mp import errors
from impala_mp.config import base, fields

_WIDTH = 88
_wrap = functools.partial(textwrap.fill, width=_WIDTH, break_on_hyphens=False)
_RUN = "run"  # the group of the fields without one
_ALL = "all"


def of_flags(values: flags.FlagValues) -> str:
    """Returns the flags that the command itself defines, one a paragraph."""
    lines = ["Flags:"]
    own = {
        flag.name: flag
        for module, found in values.flags_by_module_dict().items()
        if not module.startswith("absl")
        for flag in found
    }
    for name, flag in sorted(own.items()):
        value = {"bool": "", "int": "=N"}.get(flag.flag_type(), "=VALUE")
        either = "[no]" if flag.boolean and flag.default is None else ""
        text = f"--{either}{name}{value}  {flag.help.rstrip('.')}"
        if not flag.boolean and flag.default not in (None, ""):
            text += f" (default: {flag.default})"
        lines.append(_wrap(text, initial_indent="  ", subsequent_indent=" " * 8))
    lines += ["  --help  This text", "  --version  Print the version"]
    return "\n".join(lines)


def groups() -> str:
    """Returns how the fields of the config are shown."""
    names = ", ".join(group.name or _RUN for group in base.GROUPS)
    return _wrap(
        f"--help=GROUP shows fields of the config, --help={_ALL} all of them, with the"
        f" values of WHAT if it is named. Groups: {names}."
    )


def of_fields(name: str, config: Any = None) -> str:
    """Returns a group of fields, one field, or all.

    Each has its value, its default where that is another, its meaning with the unit,
    and what is required of it.

    Args:
      config: of the run; None: the base config.

    Raises:
      BadInput: there is no such group.
    """
    name = name.removeprefix("config.")
    lines = [
        "Fields of the config: --config.NAME=VALUE.",
        "[resume]: may change when a run is resumed; [change]: by --change.NAME=VALUE.",
        "[live]: impala-ctl changes it in a running training.",
    ]
    shown = []
    for group in base.GROUPS:
        found = [
            each
            for each in group.fields
            if name in (_ALL, group.name or _RUN, each.name)
        ]
        if found:
            title = f"{group.name}: {group.meaning}".removeprefix(": ")
            shown += ["", _wrap(title)]
            shown += [_field(each, config) for each in found]
    if not shown:
        known = [_ALL, *(group.name or _RUN for group in base.GROUPS)]
        near = fields.nearest(name, [*known, *base.BY_NAME])
        raise errors.BadInput(
            f"--help={name}: there is no such group.{near} Groups: {', '.join(known)}."
        )
    return "\n".join(lines + shown)


def _field(field: Any, config: Any) -> str:
    value = field.default if config is None else fields.get(config, field.name)
    value = value.to_dict() if hasattr(value, "to_dict") else value
    text = f"{field.name}={_shown(value)}  {field.meaning}"
    if value != field.default:
        text += f"; default {_shown(field.default)}"
    text += f" ({field.requirement})" if field.requirement else ""
    text += " [resume]" * field.operational + " [live]" * field.live
    text += " [change]" * (field.changeable and not field.operational)
    return _wrap(text, initial_indent="  ", subsequent_indent=" " * 8)


def _shown(value: Any) -> str:
    return "''" if value == "" else str(value)
