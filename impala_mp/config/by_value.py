"""Classes and functions that no module has, saved by value in the folder of a run.

The config names one `by_value_DIGEST:NAME`. Its code is in the file
by_value_DIGEST.pkl, in a folder on sys.path, which all processes of a run share. The
digest is the hash of that file, so a name stands for one content only.
"""

import contextlib
import hashlib
import os
import re
import sys
import types
from typing import Any

from impala_mp import errors

FOLDER = "by_value"  # in the folder of a run
_DIGITS = 32  # 128 bits: no other content with the same digest can be found
_MAX_BYTES = 2**28
_MODULE = re.compile(f"by_value_[0-9a-f]{{{_DIGITS}}}")
_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def is_module(module_name: str) -> bool:
    """Returns True if a module's name stands for code by value."""
    return _MODULE.fullmatch(module_name) is not None


def is_in(value: Any) -> bool:
    """Returns True if a value of a config names code by value, or contains a name."""
    return _MODULE.search(str(value)) is not None


def without_digests(text: str) -> str:
    """Returns `text` with names that are equal if their code has the same name."""
    return _MODULE.sub("by_value", str(text))


def file_name(module_name: str) -> str:
    return f"{module_name}.pkl"


def save(field: str, value: Any, folder: str) -> str:
    """Writes a class or function into `folder`; returns its name for the config.

    Raises:
      BadInput: it cannot be sent to another process.
      OSError: the file cannot be written.
    """
    import cloudpickle

    name = getattr(value, "__name__", type(value).__name__)
    name = re.sub(r"[^\w\-/]", "_", name).strip("_") or "code"
    try:
        code = cloudpickle.dumps(value)
    except Exception as error:  # of any object that the code refers to
        raise errors.BadInput(
            f"{field} ({name}) cannot be sent to the processes ({error!r:.200}). It"
            " refers to an object that belongs to this process. Make that object in"
            " its constructor or body, or define it in a module."
        ) from error
    data = f"{_VERSION}\n".encode() + code
    module = f"by_value_{_digest(data)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    path = os.path.join(folder, file_name(module))
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
    return f"{module}:{name}"


def read(module_name: str) -> bytes | None:
    """Returns the file of a module by value, from sys.path; None if there is none.

    A file whose content does not have the digest in its name is passed over.
    """
    for folder in sys.path:
        path = os.path.join(folder, file_name(module_name))
        with contextlib.suppress(OSError), open(path, "rb") as file:
            data = file.read(_MAX_BYTES)
            if module_name == f"by_value_{_digest(data)}":
                return data
    return None


def import_module(field: str, name: str) -> types.ModuleType:
    """Returns a module whose only attribute is the code of `name`.

    It executes the code. A saved run is admitted before (`storage.trust`).

    Raises:
      BadInput: there is no such code, or it cannot be loaded here.
    """
    module_name, _, attribute = name.partition(":")
    if module_name in sys.modules:
        return sys.modules[module_name]
    data = read(module_name)
    if data is None:
        raise errors.BadInput(
            f"{field} ({name!r}) is code by value, and its file"
            f" {FOLDER}/{file_name(module_name)} is missing or altered. Restore it"
            " beside config.json of the run that it was trained in."
        )
    version, _, code = data.partition(b"\n")
    if version.decode(errors="replace") != _VERSION:
        raise errors.BadInput(
            f"{field} ({name!r}) is code by value of Python"
            f" {version.decode(errors='replace')[:20]}, and this is Python {_VERSION}."
            " Use that version, or define the code in a module and train again."
        )
    import cloudpickle

    try:
        value = cloudpickle.loads(code)
    except Exception as error:  # of the imports that it makes
        raise errors.BadInput(
            f"{field} ({name!r}) cannot be loaded ({error!r:.200}). Put the folder of"
            " the modules that it imports on PYTHONPATH, or install them."
        ) from error
    module = types.ModuleType(module_name)
    setattr(module, attribute, value)
    return sys.modules.setdefault(module_name, module)


def add_folder(run: str) -> None:
    """Puts the code by value of the run in the folder `run` on sys.path."""
    folder = os.path.join(os.path.abspath(run), FOLDER)
    if folder not in sys.path:
        sys.path.append(folder)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
