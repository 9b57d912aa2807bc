"""Custom parts by the name `module:factory`, and where a user's code failed."""

import contextlib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
import types
from collections.abc import Callable
from typing import Any

from impala_mp import errors
from impala_mp.config import by_value

_MAX_LINE = 500  # characters of an error
_MAX_FRAMES = 5  # of a traceback that is shown
_FRAME = re.compile(r'  File "(.*)", line \d+, in .*\n(?:    .*\n)*')
_added: list[str] = []  # to sys.path
# Packages whose code is not the user's; imported here, they would take a second.
_LIBRARIES = ("impala_mp", "gymnasium", "numpy", "torch")
# Names that Python gives to code from standard input and from notebooks.
_WITHOUT_A_FILE = ("<stdin>", "<ipython-input", "<cell")
# Prefix of an id: the module that registers it, and the extra that installs it.
EXTRAS = {
    "ALE/": ("ale_py", "atari"),
    "MinAtar/": ("minatar.gym", "minatar"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "Foraging-": ("lbforaging", "lbforaging"),
}
# Packages of games that are named by their module, and the extra that installs them.
_GAMES = {"magent2": "magent2", "mpe2": "pettingzoo", "pettingzoo": "pettingzoo"}


def split_id(name: str) -> tuple[str, str]:
    """Returns module and rest of an environment's id; "" for no module."""
    module_name, _, plain = name.rpartition(":")
    return module_name, plain


def is_extra(module_name: str, plain: str) -> bool:
    """Returns True if `plain` is an id that an extra of this package registers."""
    package = module_name.partition(".")[0]
    return any(
        plain.startswith(prefix) and package == extra.partition(".")[0]
        for prefix, (extra, _) in EXTRAS.items()
    )


def add_current_folder() -> None:
    """Puts the current folder on sys.path, behind the installed packages.

    In front of them, a file in it called as one of theirs would be imported instead.
    """
    with contextlib.suppress(OSError):  # it may have been deleted
        add_folder(os.getcwd())


def add_folder(path: str) -> None:
    """Puts a folder on sys.path, behind the installed packages."""
    if path not in sys.path:
        sys.path.append(path)
    if path not in _added:
        _added.append(path)


def added_folders() -> list[str]:
    """Returns the folders that `add_folder` has put on sys.path."""
    return list(_added)


def load(field: str, name: str, signature: str) -> Callable[..., Any]:
    """Returns the function that `name`, "module:factory", stands for.

    Args:
      field: field of the config with this value.
      signature: expected signature, shown in the error message.

    Raises:
      BadInput: there is no such module, nothing of that name in it, or it takes other
        arguments.
    """
    module_name, _, factory_name = name.partition(":")
    module = import_module(field, name, module_name)
    if not hasattr(module, factory_name):
        raise errors.BadInput(
            f"{field} ({name!r}): module {module_name!r} has no {factory_name!r}. Name"
            f" a function {signature}."
        )
    factory: Callable[..., Any] = getattr(module, factory_name)
    arguments = signature.partition(")")[0].split(",")
    try:
        inspect.signature(factory).bind(*arguments)
    except TypeError as error:
        raise errors.BadInput(
            f"{field} ({name!r}) cannot be called ({error}). Name a function"
            f" {signature}."
        ) from error
    except ValueError:
        pass  # code without a signature
    return factory


def import_module(field: str, name: str, module_name: str) -> types.ModuleType:
    """Imports the module in `name`, the value of `field`.

    Raises:
      BadInput: there is no such module, or one of a game's package is missing. Failing
        imports inside a user's module are not caught.
    """
    if by_value.is_module(module_name):
        return by_value.import_module(field, name)
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise errors.BadInput(
            f"{field} ({name!r}) names no module. Set config.{field} to module:name."
        )
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        package = module_name.partition(".")[0]
        # Otherwise an import inside the module has failed, as of `gym` in `gym_mine`.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            if package not in _GAMES:
                raise
            raise errors.BadInput(
                f"{field} ({name!r}) needs the module {error.name!r}, which is not"
                " installed. Install its package."
            ) from error
        cure = "put its folder on PYTHONPATH or install it."
        if package in _GAMES:
            cure = f"run pip install 'impala_mp[{_GAMES[package]}]'."
        raise errors.BadInput(
            f"{field} ({name!r}): there is no module {module_name!r} to import: {cure}"
        ) from error


def explain(error: BaseException) -> str:
    """Returns the last line of a traceback, cut off, and the place in the user's code.

    Notes that were added to the error follow that line, and are left out.
    """
    whole = traceback.TracebackException.from_exception(error)
    whole.__notes__ = None  # type: ignore[attr-defined]
    line = list(whole.format_exception_only())[-1].strip()
    return line[:_MAX_LINE] + where(error)


def where(error: BaseException) -> str:
    """Returns ` (file:line, in function)` of the user's deepest frame, or ""."""
    frames: list[traceback.FrameSummary] = []  # the deepest last
    cause: BaseException | None = error
    while cause is not None:
        frames = [*traceback.extract_tb(cause.__traceback__), *frames]
        cause = cause.__cause__
    return place([(each.filename, each.lineno, each.name) for each in frames])


def own_traceback(error: BaseException) -> str:
    """Returns the user's frames and the error if the user's code failed; else "".

    It failed if the user's deepest frame is below every frame of this package. An
    installed package is not the user's here.
    """
    frames = list(traceback.extract_tb(error.__traceback__))
    ours = _folder(os.path.dirname(__file__))
    own = [
        _is_the_users(each.filename) and not _is_installed(each.filename)
        for each in frames
    ]
    last = max((i for i, each in enumerate(own) if each), default=-1)
    if any(each.filename.startswith(ours) for each in frames[last + 1 :]) or last < 0:
        return ""
    shown = [each for each, is_own in zip(frames, own, strict=True) if is_own]
    lines = traceback.format_list(shown[-_MAX_FRAMES:])
    return "".join([*lines, *traceback.format_exception_only(error)])


def shortened(text: str) -> str:
    """Returns the last traceback in `text` with the user's frames, and its error."""
    last = text.rpartition("Traceback (most recent call last):\n")[2]
    frames = list(_FRAME.finditer(last))
    if last == text or not frames:
        return text
    own = [each for each in frames if _is_the_users(each[1])] or frames
    error = last[frames[-1].end() :].strip()
    return "".join(each[0] for each in own[-_MAX_FRAMES:]) + error


def place(frames: list[tuple[str, int | None, str]]) -> str:
    """Returns the user's deepest of the frames (file, line, function), or "".

    An installed package, such as an environment's, counts if no other code does.
    """
    own = [frame for frame in frames if _is_the_users(frame[0])]
    own = [frame for frame in own if not _is_installed(frame[0])] or own
    return " ({}:{}, in {})".format(*own[-1]) if own else ""


def _is_installed(filename: str) -> bool:
    return "site-packages" in filename or "dist-packages" in filename


def _folder(file: str) -> str:
    """Returns the beginning of the names of files beside `file`, or below."""
    return os.path.join(os.path.dirname(os.path.abspath(file)), "")


def _is_the_users(filename: str) -> bool:
    loaded = (sys.modules.get(name) for name in _LIBRARIES)
    files = (module.__file__ for module in loaded if module and module.__file__)
    ours = tuple(map(_folder, files))
    in_library = filename.startswith(sysconfig.get_path("stdlib"))
    if filename.startswith("<"):  # others are of generated code
        return filename.startswith(_WITHOUT_A_FILE)
    return not filename.startswith(ours) and (_is_installed(filename) or not in_library)
