"""Presets: the experiments that are installed with the package."""

import ast
import inspect
import os
import re
import runpy
from typing import NamedTuple

from impala_mp.config import fields, user_code

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CONSTANT = "ENVIRONMENT"


class Preset(NamedTuple):
    """An experiment; all of this is read without executing it."""

    name: str
    path: str
    # Id that it is for, from its ENVIRONMENT; {} stands for the variant. "": for none.
    environment: str
    summary: str  # first sentence of its docstring

    def variant(self, environment: str) -> str | None:
        """Returns the variant for an environment, "" without one; None if not for it.

        A module that only registers the id is left out: `ale_py:ALE/Pong-v5` is
        `ALE/Pong-v5`. Any other may have an environment of the same name.
        """
        module, plain = user_code.split_id(environment)
        pattern = re.escape(self.environment).replace(r"\{\}", r"(\w+)")
        match = re.fullmatch(pattern, plain)
        if not match or not self.environment:
            return None
        if module not in ("", "gymnasium") and not user_code.is_extra(module, plain):
            return None
        return match[1] if match.groups() else ""


def folder() -> str:
    """Returns the folder of the presets: in the package, or beside it in a checkout."""
    installed = os.path.join(_PACKAGE, "experiments")
    if os.path.isdir(installed):
        return installed
    return os.path.join(os.path.dirname(_PACKAGE), "experiments")


def module_of(path: str) -> str:
    """Returns the name by which an experiment's file can be imported.

    It starts at the package for a preset that is installed, else at the current folder.
    For a file elsewhere it has the name of its folder: the one above must be on the
    path.
    """
    package, file = os.path.realpath(_PACKAGE), os.path.realpath(path)
    if os.path.dirname(os.path.dirname(file)) == package:
        start = os.path.dirname(package)
    else:
        start, file = os.getcwd(), os.path.abspath(path)
    parts = os.path.splitext(os.path.relpath(file, start))[0].split(os.sep)
    return ".".join(parts[-2:] if os.pardir in parts else parts)


def presets() -> list[Preset]:
    """Returns all presets by name; [] if the package was installed without them."""
    there = folder()
    names = sorted(os.listdir(there)) if os.path.isdir(there) else []
    return [
        _read(os.path.join(there, name))
        for name in names
        if name.endswith(".py") and not name.startswith("_")
    ]


def named(name: str) -> Preset | None:
    """Returns the preset called `name`, or None."""
    return next((each for each in presets() if each.name == name), None)


def for_environment(environment: str) -> tuple[Preset, str] | None:
    """Returns the preset of an environment and its variant, or None.

    A preset whose file names its variants is for those alone: such a file is executed.
    """
    for preset in presets():
        variant = preset.variant(environment)
        if variant is None:
            continue
        if not variant or variant in (variants(preset) or (variant,)):
            return preset, variant
    return None


def variants(preset: Preset) -> tuple[str, ...]:
    """Returns the variants that the preset's `one_of` names; executes its file.

    () where it takes none, or takes any game as one.
    """
    get_config = runpy.run_path(preset.path)["get_config"]
    if not inspect.signature(get_config).parameters:
        return ()
    try:
        get_config("")
    except fields.NoVariant as error:
        return error.variants
    return ()


def _read(path: str) -> Preset:
    with open(path, encoding="utf-8") as file:
        module = ast.parse(file.read())
    environment = ""
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [each.id for each in node.targets if isinstance(each, ast.Name)]
            environment = str(node.value.value) if _CONSTANT in names else environment
    text = " ".join((ast.get_docstring(module) or "").split())
    summary = re.match(r".*?\.(?= [A-Z]|$)|.*", text)
    name = os.path.basename(path).removesuffix(".py")
    return Preset(name, path, environment, summary[0] if summary else "")
