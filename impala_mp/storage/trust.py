"""Code that a saved run names, and the record of code that this user has trained.

A run's config names modules, which are imported, and factories, which are called with
its arguments. A run from elsewhere must not execute anything by that: its code is
loaded if this user has trained the same code with the same arguments, or with --trust.
The record is a file for each such digest, in a folder that only its owner can write.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from impala_mp import errors
from impala_mp.config import arguments, by_value, derived, fields, user_code

_FOLDERS = ("impala_mp", "trained")  # below the user's folder for state
_MAX_FOLDERS_BYTES = 2**16
_OF_NETWORK = re.compile(r"(policies\..*\.)?network\.(torso|core|encoders\..*)")


class Name(NamedTuple):
    """Code in a config: a module to import, and what to take or call of it."""

    field: str
    name: str  # module:factory, or module:Id
    module: str


def names(config: Any) -> list[Name]:
    """Returns all code that a config names, other than built-ins and registered ids."""
    found = []
    for name in derived.task_names(config.environment):
        module, plain = user_code.split_id(name)
        if module and not user_code.is_extra(module, plain):
            found.append(Name("environment.id", name, module))
    parts = [
        (f"{group}.kwargs", each)
        for group in ("environment", "evaluation")
        for each in arguments.references(arguments.encode(config[group].kwargs))
    ]
    networks = {"network": config.network, "policies": config.policies}
    parts += [
        (field, value)
        for group, each in networks.items()
        for name, value in fields.flatten(each).items()
        if _OF_NETWORK.fullmatch(field := f"{group}.{name}")
    ]
    for field, name in parts:
        if isinstance(name, str) and ":" in name:
            found.append(Name(field, name, name.partition(":")[0]))
    return found


def admit(config: Any, path: str, trust: bool) -> None:
    """Checks, before anything is imported, that the code of a run may be loaded.

    Puts the current folder on sys.path if there is code to load, and the run's code by
    value behind it.

    Args:
      path: the run or the file that `config` is from.
      trust: True loads any code, and names it on stderr.

    Raises:
      BadInput: neither has this user trained it, nor is it trusted.
    """
    code = names(config)
    if not code:
        return
    user_code.add_current_folder()
    for folder in _recorded_folders(path):
        user_code.add_folder(folder)
    if any(_place(each) for each in code) and not _is_recorded(config, code):
        _require_trust(code, path, trust)
    add_by_value(config, path)


def add_by_value(config: Any, path: str) -> None:
    """Makes the code by value of a run loadable.

    Args:
      path: the run or one of its crash files.
    """
    if any(by_value.is_module(each.module) for each in names(config)):
        is_file = os.path.isfile(path)
        by_value.add_folder(os.path.join(path, "..", "..") if is_file else path)


def _require_trust(code: list[Name], path: str, trust: bool) -> None:
    listed = ", ".join(f"{each.name} ({each.field})" for each in code)
    if not trust:
        raise errors.BadInput(
            f"{path} imports and calls {listed}. This user has not trained that code"
            " with these arguments here. Add --trust, in Python trust=True, if both"
            " are safe."
        )
    print(f"--trust: {path} imports and calls {listed}.", file=sys.stderr)


def record(config: Any, path: str) -> str:
    """Records that this user trains the code of `config` in the folder `path`.

    Returns:
      A sentence if it cannot be recorded; otherwise "".
    """
    code = names(config)
    if not code:
        return ""
    texts = {
        _digest(config, code): {"workdir": path, "code": [each.name for each in code]},
        _name_of_folders(path): user_code.added_folders(),
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        _make_folder()
        with _open_folder() as folder:
            for name, text in texts.items():
                with open(os.open(name, flags, 0o600, dir_fd=folder), "w") as file:
                    file.write(f"{json.dumps(text)}\n")
    except OSError as error:
        return (
            f"This run is not recorded as trained by this user ({error})."
            " impala-eval, impala-play, impala-export and impala-diagnose will need"
            " --trust."
        )
    return ""


def _name_of_folders(path: str) -> str:
    return f"path-{hashlib.sha256(os.path.realpath(path).encode()).hexdigest()}"


def _recorded_folders(path: str) -> list[str]:
    """Returns the folders on sys.path in which the code of the run in `path` was."""
    try:
        with _open_folder() as folder:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            opened = os.open(_name_of_folders(path), flags, dir_fd=folder)
            with open(opened) as file:
                found = json.loads(file.read(_MAX_FOLDERS_BYTES))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str) and os.path.isabs(each)]


def _is_recorded(config: Any, code: list[Name]) -> bool:
    try:
        with _open_folder() as folder:
            status = os.stat(
                _digest(config, code), dir_fd=folder, follow_symlinks=False
            )
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _digest(config: Any, code: list[Name]) -> str:
    """Returns a hash of the code, its places on the disk, and its arguments."""
    parts = [
        [[each.field, each.name, _place(each)] for each in code],
        config.environment.id,
        arguments.encode(config.environment.kwargs),
    ]
    if config.evaluation.kwargs:
        parts.append(arguments.encode(config.evaluation.kwargs))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _place(name: Name) -> str:
    """Returns where the module's package is, without importing it; "" if nowhere.

    The name of code by value has the digest of its content, wherever it is.
    """
    if by_value.is_module(name.module):
        return by_value.FOLDER
    package = name.module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return package if package in sys.modules else ""
    if spec is None:
        return ""
    paths = spec.submodule_search_locations or [spec.origin or package]
    # "built-in" and "frozen" are no paths.
    found = (os.path.realpath(each) if os.path.isabs(each) else each for each in paths)
    return os.pathsep.join(found)


def _paths() -> list[str]:
    """Returns the user's folder for state, and the folders in it down to the record."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.local/state")
    paths = [base]
    for name in _FOLDERS:
        paths.append(os.path.join(paths[-1], name))
    return paths


def _make_folder() -> None:
    base, *own = _paths()
    os.makedirs(base, exist_ok=True)
    for path in own:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


@contextlib.contextmanager
def _open_folder() -> Iterator[int]:
    """Opens the folder of the record.

    Raises:
      OSError: it is missing, a link, or another user could write to it.
    """
    _, *own = _paths()
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened: list[int] = []
    try:
        for path in own:
            opened.append(os.open(path, flags))
            status = os.fstat(opened[-1])
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise PermissionError(f"{path} is writable by other users")
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)
