"""Parts of the user's own, by the name `module:factory`."""

import importlib
import types
from collections.abc import Callable
from typing import Any

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
