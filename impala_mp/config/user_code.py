"""Parts of the user's own, by the name `module:factory`."""

import importlib
import os
import sysconfig
import traceback
import types
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

from impala_mp import errors


def load(field: str, name: str, signature: str) -> Callable[..., Any]:
    """What `name`, "module:factory", stands for.

    Args:
      field: of the config, that has this value.
      signature: of the function that it should name, for whoever named no such one.

    Raises:
      BadInput: there is no such module, or nothing of that name in it.
    """
    module_name, _, factory_name = name.partition(":")
    module = import_module(field, name, module_name)
    if not hasattr(module, factory_name):
        raise errors.BadInput(
            f"{field} ({name!r}): module {module_name!r} has no {factory_name!r}: name"
            f" a function {signature}."
        )
    return getattr(module, factory_name)


def import_module(field: str, name: str, module_name: str) -> types.ModuleType:
    """The module, which is a part of what `field` says: `name`.

    Raises:
      BadInput: there is no such module. What it fails to import itself is not caught.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise errors.BadInput(
            f"{field} ({name!r}): there is no module {module_name!r} to import:"
            " put its folder on PYTHONPATH or install it."
        ) from error


def explain(error: BaseException) -> str:
    """The last line of a traceback, and where in the user's code it comes from."""
    return traceback.format_exception_only(error)[-1].strip() + where(error)


def where(error: BaseException) -> str:
    """` (file:line, in function)` of the user's code that led to it, or nothing."""
    frames: list[traceback.FrameSummary] = []  # the deepest last
    cause: BaseException | None = error
    while cause is not None:
        frames = [*traceback.extract_tb(cause.__traceback__), *frames]
        cause = cause.__cause__
    own = [frame for frame in frames if _is_the_users(frame.filename)]
    if not own:
        return ""
    return f" ({own[-1].filename}:{own[-1].lineno}, in {own[-1].name})"


def _is_the_users(filename: str) -> bool:
    packages = (gymnasium.__file__, np.__file__, torch.__file__, __file__)
    ours = tuple(os.path.dirname(os.path.abspath(path)) for path in packages)
    in_library = filename.startswith(sysconfig.get_path("stdlib"))
    installed = "site-packages" in filename or "dist-packages" in filename
    return not filename.startswith((*ours, "<")) and (installed or not in_library)
