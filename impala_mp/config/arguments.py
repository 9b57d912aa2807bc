"""Arguments of the environment's constructor, exact through JSON.

None, booleans, whole numbers, finite floats, strings, lists, and dicts with sorted
names are themselves. Any other value is a dict with one key, its kind after a "$".
Decoding imports nothing: a class or function is a `Reference` until `plain`.
"""

import base64
import dataclasses
import enum
import importlib
import io
import json
import math
import operator
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ml_collections import config_dict

from impala_mp import errors
from impala_mp.config import user_code

_FIELD = "environment.kwargs"
_TAG = "$"
_MAX_LEVELS, _MAX_MIB = 24, 8  # of the JSON; readers of config.json have limits, too
_MAX_BITS = 10_000  # of a whole number; Python reads no longer ones from text
_ITSELF = (type(None), bool, str)
_SEQUENCES: dict[str, Callable[[Iterable[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
_BYTES: dict[str, Callable[[bytes], Any]] = {"bytes": bytes, "bytearray": bytearray}
_PATH = type(pathlib.Path())
# Types that need no import, and so no trust.
_TYPES = {
    each.__name__: each
    for each in (bool, int, float, complex, str, bytes, list, tuple, dict, set)
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """Class, function or member of an enum, not imported yet."""

    name: str  # module:name

    def __str__(self) -> str:
        return self.name


def plain(kwargs: Any) -> dict[str, Any]:
    """Returns what the constructor receives, in training as after a file.

    Raises:
      BadInput: an argument cannot be saved, or a reference cannot be imported.
    """
    found: dict[str, Any] = _decode_all(encode(kwargs), _load)
    return found


def encode(kwargs: Any, field: str = _FIELD) -> Any:
    """Returns JSON for `kwargs`, from which `decode` makes equal ones.

    `field` is their place in the config.

    Raises:
      BadInput: with the argument, its kind and the cure.
    """
    try:
        encoded = _encode(kwargs, field)
        if _is_deeper(encoded, _MAX_LEVELS):
            raise RecursionError
    except RecursionError as error:
        raise errors.BadInput(
            f"{field} contain themselves or are nested too deeply. Set config.{field}"
            " to flatter values."
        ) from error
    size = len(json.dumps(encoded)) / 2**20
    if size > _MAX_MIB:
        raise errors.BadInput(
            f"{field} take {size:.1f} MiB in config.json. At most {_MAX_MIB} are kept."
            f" Set config.{field} to the name of a file that the environment reads."
        )
    return encoded


def decode(encoded: Any) -> Any:
    """Returns the values that were encoded; imports nothing.

    Raises:
      BadInput: it was written by another version, or is damaged.
    """
    return _decode_all(encoded, Reference)


def is_tagged(encoded: Any) -> bool:
    """Returns True if these JSON values stand for a value that JSON lacks."""
    return (
        isinstance(encoded, dict)
        and len(encoded) == 1
        and next(iter(encoded)).startswith(_TAG)
    )


def references(encoded: Any) -> list[str]:
    """Returns the names of all classes and functions in `encoded`, sorted."""
    found: set[str] = set()

    def note(name: str) -> Reference:
        found.add(name)
        return Reference(name)

    _decode_all(encoded, note)
    return sorted(found)


def _encode(value: Any, where: str) -> Any:
    kind = type(value)
    if kind in _ITSELF or (kind is int and value.bit_length() <= _MAX_BITS):
        return value
    if kind is float:
        return value if math.isfinite(value) else _tagged("float", repr(value))
    if kind is list:
        return _each(value, where)
    if isinstance(value, config_dict.ConfigDict) or kind is dict:
        return _encode_dict(value, where)
    if kind in _SEQUENCES.values():
        return _tagged(kind.__name__, _encode_sequence(value, where))
    if kind in _BYTES.values():
        return _tagged(kind.__name__, base64.b64encode(value).decode("ascii"))
    if kind is complex:
        return _tagged("complex", _each([value.real, value.imag], where))
    if kind in (range, slice):
        parts = [value.start, value.stop, value.step]
        return _tagged(kind.__name__, _each(parts, where))
    if kind is _PATH:
        return _tagged("path", str(value))
    if isinstance(value, Reference):
        return _tagged("object", value.name)
    if kind is np.ndarray or isinstance(value, (np.generic, np.dtype)):
        return _encode_numpy(value, where)
    if isinstance(value, (type, enum.Enum)) or callable(value):
        return _encode_object(value, where)
    raise _refusal(value, where)


def _is_deeper(encoded: Any, levels: int) -> bool:
    """Returns True if JSON has more than `levels` levels."""
    if not isinstance(encoded, (dict, list)):
        return False
    values = encoded.values() if isinstance(encoded, dict) else encoded
    return not levels or any(_is_deeper(each, levels - 1) for each in values)


def _tagged(kind: str, encoded: Any) -> dict[str, Any]:
    return {f"{_TAG}{kind}": encoded}


def _each(values: Iterable[Any], where: str) -> list[Any]:
    return [_encode(value, f"{where}[{i}]") for i, value in enumerate(values)]


def _encode_sequence(values: Iterable[Any], where: str) -> list[Any]:
    encoded = _each(values, where)
    return encoded if isinstance(values, tuple) else sorted(encoded, key=json.dumps)


def _encode_dict(values: Any, where: str) -> Any:
    try:
        items = list(values.items())
    except TypeError as error:  # a ConfigDict sorts its keys
        raise errors.BadInput(
            f"{where} has keys of different kinds, which have no order. Set"
            f" config.{where} to a dict whose keys are of one kind."
        ) from error
    keys = [key for key, _ in items]
    encoded = [(k, _encode(v, f"{where}.{k}")) for k, v in items]
    if all(type(key) is str and not key.startswith(_TAG) for key in keys) and (
        keys == sorted(keys)
    ):
        return dict(encoded)
    return _tagged("dict", [[_encode(k, f"{where}, a key"), v] for k, v in encoded])


def _encode_numpy(value: Any, where: str) -> Any:
    kind = "array" if isinstance(value, np.ndarray) else "scalar"
    if isinstance(value, np.dtype):
        kind, value = "dtype", np.empty(0, value)
    buffer = io.BytesIO()
    try:
        np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=False)
    except ValueError as error:  # it holds Python objects
        raise _refusal(value, where) from error
    return _tagged(kind, base64.b64encode(buffer.getvalue()).decode("ascii"))


def _encode_object(value: Any, where: str) -> Any:
    if any(value is each for each in _TYPES.values()):
        return _tagged("type", value.__name__)
    if isinstance(value, type) and issubclass(value, np.generic):
        return _tagged("type", f"numpy.{value.__name__}")
    of = type(value) if isinstance(value, enum.Enum) else value
    module, name = getattr(of, "__module__", None), getattr(of, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise _refusal(value, where)
    if isinstance(value, enum.Enum):
        name = f"{name}.{value.name}"
    if not _is_found(value, module, name):
        raise errors.BadInput(
            f"{where} is {module}:{name}, which cannot be imported by that name."
            " Evaluation, play and export import it again. Define it at the top level"
            " of a module, not in the experiment's file, and set it in"
            f" config.{_FIELD}."
        )
    return _tagged("object", f"{module}:{name}")


def _is_found(value: Any, module: str, name: str) -> bool:
    """Returns True if another process finds `value` under this name."""
    if module == "__main__":
        return False
    try:
        imported = importlib.import_module(module)
        return operator.attrgetter(name)(imported) is value
    except (ImportError, AttributeError):
        return False


def _refusal(value: Any, where: str) -> errors.BadInput:
    return errors.BadInput(
        f"{where} is a {type(value).__name__} that config.json cannot hold exactly."
        " Arguments may be numbers, strings, bytes, paths, lists, tuples, sets, dicts,"
        " NumPy arrays, and classes and functions of modules. Set"
        f" config.{_FIELD} to those, and make the rest in the environment."
    )


def _decode_all(encoded: Any, refer: Callable[[str], Any]) -> Any:
    """Decodes JSON; `refer` maps the name of a class or function to its value."""
    try:
        return _decode(encoded, refer)
    except RecursionError as error:
        raise errors.BadInput(
            f"{_FIELD} are nested too deeply, so this config is damaged. Restore the"
            " file, or start a new run."
        ) from error


def _decode(encoded: Any, refer: Callable[[str], Any]) -> Any:
    if isinstance(encoded, list):
        return [_decode(each, refer) for each in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if not is_tagged(encoded):
        return {key: _decode(value, refer) for key, value in encoded.items()}
    [(tag, content)] = encoded.items()
    if tag == f"{_TAG}object" and isinstance(content, str):
        return refer(content)
    try:
        return _decode_kind(tag.removeprefix(_TAG), content, refer)
    except (errors.BadInput, RecursionError):
        raise
    except Exception as error:  # of NumPy's reader and of any constructor
        raise errors.BadInput(
            f"{_FIELD} has a {tag!r} that is damaged or of another impala_mp version"
            f" ({error!r:.80}). Restore the file, or start a new run."
        ) from error


def _decode_kind(kind: str, content: Any, refer: Callable[[str], Any]) -> Any:
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_decode(each, refer) for each in content)
    if kind == "dict":
        return {_decode(k, refer): _decode(v, refer) for k, v in content}
    if kind in _BYTES:
        return _BYTES[kind](base64.b64decode(content))
    if kind == "type":
        return _decode_type(content)
    if kind in ("array", "scalar", "dtype"):
        buffer = io.BytesIO(base64.b64decode(content))
        loaded = np.lib.format.read_array(buffer, allow_pickle=False)
        return {"array": loaded, "dtype": loaded.dtype}.get(kind, loaded[()])
    simple: dict[str, Callable[..., Any]] = {"float": float, "path": pathlib.Path}
    if kind in simple:
        return simple[kind](content)
    parts: dict[str, Callable[..., Any]] = {
        "complex": complex,
        "range": range,
        "slice": slice,
    }
    return parts[kind](*_decode(content, refer))


def _decode_type(name: str) -> type:
    module, _, of_numpy = name.partition(".")
    found = getattr(np, of_numpy) if module == "numpy" else _TYPES[name]
    if not (name in _TYPES or issubclass(found, np.generic)):
        raise ValueError(name)
    kind: type = found
    return kind


def _load(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    module = user_code.import_module(_FIELD, name, module_name)
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        raise errors.BadInput(
            f"{_FIELD} ({name!r}): module {module_name!r} has no {attribute!r}. Set"
            f" config.{_FIELD}."
        ) from error
