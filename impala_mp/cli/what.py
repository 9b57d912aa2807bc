"""WHAT of `impala-train WHAT`: a preset, an environment, or the folder of a run."""

import itertools
import os
import re
import textwrap
import time
from collections.abc import Container
from typing import Any, NamedTuple

from impala_mp import errors
from impala_mp.config import base, fields, presets
from impala_mp.storage import workdir as workdir_lib

# Beginnings of a value of --config that names no file; users write WHAT instead.
_ENVIRONMENT, _RUN = "environment=", "run="
_WAYS = (
    "Name a preset (impala-train --list shows them), an environment (CartPole-v1,"
    " my_module:MyGame) or the folder of a run to resume"
)


class What(NamedTuple):
    """The value of --config that stands for WHAT, and the folder if it is a run."""

    config: str
    workdir: str = ""


# Flags without a value: what follows one may be WHAT.
_SWITCHES = {"check", "detach", "trust", "version", "help", "h"}


def take(arguments: list[str]) -> tuple[What, list[str], list[str]]:
    """Takes WHAT and the changes out of the arguments of impala-train.

    Returns:
      WHAT, or two empty strings; the names of changed fields; and the arguments as
      flags, with --config in place of WHAT and of --change.

    Raises:
      BadInput: WHAT is unknown or given twice, or a field may not change.
    """
    named, changes, left = What(""), list[str](), list[str]()
    for before, argument in itertools.pairwise(["", *arguments]):
        flag = argument.lstrip("-")
        if flag.startswith("change.") and argument != flag:
            changes.append(flag.removeprefix("change.").partition("=")[0])
            check_changeable(changes[-1])
            argument = f"--config.{flag.removeprefix('change.')}"
        elif not argument.startswith("-") and not _takes_value(before):
            if named.config:
                raise errors.BadInput(f"{argument!r} is a second thing to train.")
            named = resolve(argument)
            continue
        left.append(argument)
    return named, changes, _with(named, left)


def _takes_value(argument: str) -> bool:
    name = argument.lstrip("-")
    plain = name.removeprefix("no")
    key = plain.removeprefix("config.").removeprefix("change.")
    field = base.BY_NAME.get(fields.without_policy(key))
    is_switch = plain in _SWITCHES or (field and isinstance(field.default, bool))
    return bool(name) and name != argument and "=" not in name and not is_switch


def check_changeable(name: str) -> None:
    """Raises BadInput unless the field `name` may change during a run."""
    field = base.BY_NAME.get(fields.without_policy(name))
    if field is None:
        near = fields.nearest(name, list(base.BY_NAME))
        raise errors.BadInput(f"there is no field {name!r}.{near}")
    if not (field.changeable or fields.is_operational(name)):
        raise errors.BadInput(
            f"{name} cannot change during a run: what was learned depends on it. Start"
            f" a new run with --config.{name}."
        )


def _with(named: What, flags: list[str]) -> list[str]:
    """Returns the flags with WHAT's in front.

    Raises:
      BadInput: there is such a flag already.
    """
    if not named.config:
        return flags
    for flag in flags:
        name = flag.lstrip("-").partition("=")[0]
        if name == "config" or (name == "workdir" and named.workdir):
            raise errors.BadInput(
                f"--{name} and WHAT exclude each other. Leave out one."
            )
    return [f"--config={named.config}", *flags]


def resolve(name: str) -> What:
    """Returns what `name` stands for.

    Raises:
      BadInput: it is none of the three.
    """
    if os.path.lexists(os.path.join(name, "config.json")):
        return What(f"{_RUN}{name}", name)
    plain, _, variant = name.partition(":")
    preset = presets.named(plain)
    if preset:
        return What(_joined(preset.path, variant))
    found = presets.for_environment(name)
    if found:
        return What(_joined(found[0].path, found[1]))
    if os.path.isdir(name):
        raise errors.BadInput(f"{name} has no config.json. {_WAYS}.")
    if name.endswith(".py") or ".py:" in name:
        raise errors.BadInput(f"{name} is a file. Use --config={name}.")
    if re.fullmatch(r"[a-z_0-9]+", name):
        known = [each.name for each in presets.presets()]
        raise errors.BadInput(
            f"there is no preset {name!r}.{fields.nearest(name, known)} {_WAYS}."
        )
    return What(f"{_ENVIRONMENT}{name}")


def _joined(path: str, variant: str) -> str:
    return f"{path}:{variant}" if variant else path


def nothing() -> errors.BadInput:
    """Returns the error of a command without WHAT."""
    return errors.BadInput(f"nothing to train is named. {_WAYS}.")


def load(argument: str) -> Any:
    """Returns the config of a value that `resolve` made; None for a file's.

    Raises:
      BadInput: there is no run in the folder.
    """
    if argument.startswith(_RUN):
        return workdir_lib.read_config(argument.removeprefix(_RUN))
    if argument.startswith(_ENVIRONMENT):
        config = base.get_base_config()
        config.environment.id = argument.removeprefix(_ENVIRONMENT)
        return config
    return None


def new_workdir(config: Any) -> str:
    """Returns `runs/ENVIRONMENT/DATE`, which does not exist yet."""
    return unused_folder(config.environment.id)


def unused_folder(name: str, taken: Container[str] = ()) -> str:
    """Returns `runs/NAME/DATE`, which does not exist yet.

    Args:
      taken: absolute paths that are left out.
    """
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    path = os.path.join("runs", name[:100], time.strftime("%Y-%m-%d_%H-%M-%S"))
    count, free = 1, path
    while os.path.lexists(free) or os.path.abspath(free) in taken:
        count += 1
        free = f"{path}_{count}"
    return free


def listing() -> str:
    """Returns the presets, a line each, and the variants of each."""
    lines = [f"Presets, with :VARIANT where there are some, in {presets.folder()}:"]
    for each in presets.presets():
        of = each.environment.replace("{}", "NAME") or "-"
        summary = textwrap.shorten(each.summary, 100, placeholder=" ...")
        lines.append(f"  {each.name:<12} {of:<17} {summary}")
        lines += [" " * 15 + part for part in _braces(presets.variants(each))]
    return "\n".join(lines)


def _braces(variants: tuple[str, ...]) -> list[str]:
    """Returns variants in a shell's braces: a, a-c, b, b-c are :{a,b} and {,-c}."""
    if not variants:
        return []
    words = [each.partition("-") for each in variants]
    pairs = [(head, dash + rest) for head, dash, rest in words]
    heads, tails = (dict.fromkeys(each) for each in zip(*pairs, strict=True))
    if len(tails) == 1 or len(heads) * len(tails) > len(set(pairs)):
        return [f":{{{','.join(variants)}}}"]
    return [f":{{{','.join(heads)}}}", f" {{{','.join(tails)}}}"]
