"""Flag parsing, config loading and exit codes shared by all commands."""

import io
import keyword
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_dict import config_dict

from impala_mp import __version__, errors
from impala_mp.cli import config_file, help as help_lib, values as values_lib, what
from impala_mp.config import (
    base as base_lib,
    fields as fields_lib,
    policies,
)
from impala_mp.storage import files as files_lib

POLICIES = "policies"
# Groups that take any name; the parts that read them know which there are.
OPEN = tuple(
    field.name
    for field in base_lib.FIELDS
    if field.default == {} and field.name != POLICIES
)
_OPEN_KEY = re.compile(rf"({'|'.join(map(re.escape, OPEN))})\.[^.\s]+")
_OF_A_POLICY = re.compile(rf"{POLICIES}\.[^.\s]+\.(\S+)")

_KINDS = {"int": int, "bool": bool}  # by absl's name of a flag's type


def run(main: Callable[[], None]) -> None:
    """Runs `main`; bad input prints a sentence and exits with 2, without traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # ASCII or Latin-1 may be the encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        _check_current_folder()
        main()
    except errors.BadInput as error:
        name = os.path.basename(sys.argv[0])
        print(f"{name}: {files_lib.visible(str(error))}", file=sys.stderr)
        sys.exit(2)


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise errors.BadInput(
            f"the current folder cannot be used ({error}). Change to another."
        ) from error


def parse(values: flags.FlagValues, doc: str, positional: bool = False) -> list[str]:
    """Parses sys.argv; --help prints `doc` and the flags, --help=GROUP fields.

    Returns:
      The arguments that are not flags; none unless `positional`.

    Raises:
      BadInput: an unknown flag, a missing one, or a value of the wrong type.
    """
    given = asked(sys.argv[1:])
    if "version" in given:
        print(f"{os.path.basename(sys.argv[0])} {__version__}")
        sys.exit(0)
    if "help" in given:
        _help(values, doc, given["help"])
        sys.exit(0)
    rest = _read(values, sys.argv[1:])
    if rest and not positional:
        raise errors.BadInput(
            f"{rest[0]!r} is not a flag. Flags look like --name=value. See --help."
        )
    return rest


def asked(arguments: list[str]) -> dict[str, str]:
    """Returns the flags that no run is started with, and their values."""
    pairs = [each.lstrip("-").partition("=") for each in arguments if each[:1] == "-"]
    return {"help" if name == "h" else name: value for name, _, value in pairs}


def _help(values: flags.FlagValues, doc: str, about: str) -> None:
    """Prints the help on a command, or on fields of its config."""
    if not about or "config" not in values:
        print(f"{doc.strip()}\n\n{help_lib.of_flags(values)}")
        if "config" in values:
            print(f"\n{help_lib.groups()}")
        return
    config = None
    arguments = [each for each in sys.argv[1:] if not asked([each]).keys() & {"help"}]
    if "config" in asked(arguments):
        _read(values, arguments)
        config = values["config"].value
    print(help_lib.of_fields(about, config))


def load(arguments: list[str]) -> Any:
    """Returns the config that these flags of impala-train describe.

    Raises:
      BadInput: an unknown field, or a value of the wrong type.
    """
    values = flags.FlagValues()
    config = define_config(values)
    _read(values, arguments)
    return config.value


def _read(values: flags.FlagValues, arguments: list[str]) -> list[str]:
    """Returns the arguments that are not flags. Raises BadInput."""

    def kind(name: str) -> type | None:
        return _KINDS.get(values[name].flag_type()) if name in values else None

    if "config" in values:
        arguments = _check_config(values["config"].parser, arguments)
    plain = [values_lib.plain(each, kind) for each in arguments]
    try:
        return list(values([sys.argv[0], *plain])[1:])
    except flags.Error as error:
        raise errors.BadInput(f"{error}. See --help.") from error
    except ValueError as error:  # of a ConfigDict, for a dict as a field's value
        raise errors.BadInput(config_file.explain(error)) from error


def parse_path(
    values: flags.FlagValues, doc: str, usage: str, kind: str = "folder"
) -> str:
    """Parses flags and one folder or file, and returns it. `usage` shows both.

    Raises:
      BadInput: as in `parse`, or there is not exactly one.
    """
    return _one(parse(values, doc, positional=True), usage, kind)


def _one(paths: list[str], usage: str, kind: str = "folder") -> str:
    if len(paths) != 1:
        got = f"not {', '.join(map(repr, paths))}" if paths else "but none is given"
        raise errors.BadInput(f"one {kind} is required, {got}. Use: {usage}.")
    return paths[0]


def define_workdir(values: flags.FlagValues) -> Any:
    """Defines --workdir, of the commands that take a run."""
    return flags.DEFINE_string(
        "workdir",
        None,
        "Folder of a run; DIR alone means the same.",
        flag_values=values,
    )


def parse_run(values: flags.FlagValues, doc: str, usage: str) -> str:
    """Parses flags and a run's folder, DIR or --workdir=DIR; returns the folder.

    Raises:
      BadInput: as in `parse_path`.
    """
    named = define_workdir(values)
    folders = parse(values, doc, positional=True)
    if named.value is not None and folders != [named.value]:
        folders.append(named.value)
    return _one(folders, usage)


def define_config(values: flags.FlagValues) -> Any:
    """Defines --config, with --config.field=value for every field."""
    # By keyword: absl makes parsers without one only once in a process.
    parser = _ConfigParser(loaded={})
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "FILE.py or FILE.py:VARIANT with get_config(); --config.field=value changes a"
        " field of it.",
        flag_values=values,
        lock_config=False,  # the base config is locked, environment.kwargs excepted
        accept_new_attributes=True,
        sys_argv=parser.argv,
    )
    values["config"].parser = parser
    return holder


def define_trust(values: flags.FlagValues) -> Any:
    """Defines --trust, of the commands that load a saved run."""
    return flags.DEFINE_boolean(
        "trust",
        False,
        "Import and call the code that the run names, although this user has not"
        " trained it here.",
        flag_values=values,
    )


def define_checkpoint(values: flags.FlagValues) -> Any:
    """Defines --checkpoint, of the commands that load a saved run."""
    return flags.DEFINE_string(
        "checkpoint",
        "newest",
        "newest, best (by the evaluations of the run), or the update of one.",
        flag_values=values,
    )


def checkpoint(value: str) -> str | int:
    """Returns the value of --checkpoint as `SavedRun` takes it."""
    return int(value) if value.isdecimal() else value


class _ConfigParser(flags.ArgumentParser):
    """Parser of --config that executes each experiment file once."""

    def __init__(self, loaded: dict[str, Any]) -> None:
        self._loaded = loaded
        self.argv = [sys.argv[0]]  # with the fields, as absl reads them

    def parse(self, argument: str) -> Any:
        """Returns the config of FILE.py or FILE.py:VARIANT.

        Raises:
          BadInput: it cannot be loaded.
        """
        if argument not in self._loaded:
            path, _, variant = argument.partition(":")
            self._loaded[argument] = what.load(argument) or config_file.load(
                path, variant
            )
        return self._loaded[argument]

    def flag_type(self) -> str:
        return "config object"


def _check_config(parser: _ConfigParser, arguments: list[str]) -> list[str]:
    """Checks that --config can be loaded and that all fields exist.

    Returns:
      `arguments` with a = between every field and its value, and names and values as
      absl reads them. The parser has them, too.

    Raises:
      BadInput: with the nearest name that exists. A bug inside the file keeps its
        traceback.
    """
    arguments = _join(arguments, lambda name: name == "config")
    named = [a for a in arguments if a.lstrip("-").startswith("config=")]
    if not named:
        raise what.nothing()
    config = parser.parse(named[-1].split("=", 1)[1])
    fields = fields_lib.flatten(config)
    arguments = _join(
        arguments,
        lambda name: (
            name.startswith("config.")
            and not isinstance(_known(fields, name.removeprefix("config.")), bool)
        ),
    )
    for argument in arguments:
        name = argument.lstrip("-").split("=")[0]
        if name.startswith(("config.", "noconfig.")):
            key = name.split(".", 1)[1]
            if _OF_A_POLICY.fullmatch(key):
                fields[key] = _known(fields, key)
                place(config, key)
            elif key not in fields and not _OPEN_KEY.fullmatch(key):
                raise no_field(key, list(fields))

    def kind(name: str) -> type | None:
        return type(fields.get(name.removeprefix("config.")))

    parser.argv[1:] = [
        _as_path(values_lib.plain(each, kind))
        if each.lstrip("-").startswith(("config.", "noconfig."))
        else each
        for each in arguments
    ]
    return parser.argv[1:]


def _as_path(argument: str) -> str:
    """Returns a flag of a field with the name as absl reads it: `a.b['c/d']`."""
    name, equals, value = argument.partition("=")
    first, *parts = name.split(".")
    for part in parts:
        is_plain = part.isidentifier() and not keyword.iskeyword(part)
        first += f".{part}" if is_plain else f"[{part!r}]"
    return f"{first}{equals}{value}"


def _known(fields: dict[str, Any], key: str) -> Any:
    """Returns the value of a field, or for that of a policy one of its type."""
    own = _OF_A_POLICY.fullmatch(key)
    field = base_lib.BY_NAME.get(own[1]) if own else None
    return fields.get(key, field.default if field else None)


def place(config: Any, key: str) -> config_dict.ConfigDict:
    """Returns the group that a field is in. Those of a single policy are made.

    Whether there is such a policy, with such a field, is known with the environment.

    Raises:
      BadInput: there is no such group, or a policy cannot be called so.
    """
    groups = key.split(".")[:-1]
    is_own = groups[:1] == [POLICIES]
    if is_own:
        policies.check_name(groups[1])
    for group in groups:
        if is_own and group not in config:
            config[group] = config_dict.ConfigDict()
        config = config.get(group)
        if not isinstance(config, config_dict.ConfigDict):
            raise no_field(key, list(base_lib.BY_NAME))
    return config


def no_field(key: str, known: list[str]) -> errors.BadInput:
    """Returns the refusal of a field that does not exist, with the nearest one."""
    return errors.BadInput(
        f"there is no field config.{key}.{fields_lib.nearest(key, known)}"
    )


def _join(arguments: list[str], takes_value: Callable[[str], bool]) -> list[str]:
    """Rewrites `--name value` as `--name=value` where a name takes a value."""
    joined, rest = [], iter(arguments)
    for argument in rest:
        name = argument.lstrip("-")
        if argument.startswith("-") and "=" not in name and takes_value(name):
            value = next(rest, None)
            argument = argument if value is None else f"{argument}={value}"
        joined.append(argument)
    return joined
