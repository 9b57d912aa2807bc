"""Config of an experiment file: FILE.py with get_config()."""

import inspect
import os
import re
import runpy
import traceback
from typing import Any

from ml_collections.config_dict import config_dict

from impala_mp import errors
from impala_mp.config import base, fields as fields_lib, presets, user_code

_CURE = "Start from config = impala_mp.config.get_base_config()."
# Parts of a ConfigDict's errors.
_UNKNOWN_KEY = re.compile("""(?:Key )?["'](.+?)["']""")
_MEANT_KEY = re.compile('Did you mean "(.+?)"')
_DOTTED_KEY = re.compile("the key (.+) contains one")


def load(path: str, variant: str) -> Any:
    """Returns the config of FILE.py, or of one of its variants.

    Raises:
      BadInput: it cannot be loaded. A bug inside the file keeps its traceback.
    """
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or "."
        there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        files = [name for name in there if name.endswith(".py")]
        raise errors.BadInput(
            f"--config={path} does not exist. {folder} has"
            f" {', '.join(files) or 'no experiments'}."
        )
    _check_python(path)
    # Modules beside the experiment are found like those in the current folder. Without
    # its extra, `minigrid` would be the preset of that name.
    folder = os.path.dirname(os.path.abspath(path))
    if folder != presets.folder():
        user_code.add_folder(folder)
    try:
        config = _get_config(path, [variant] if variant else [])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if frames[-1].filename != config_dict.__file__:
            raise  # a bug in the file
        own = [frame for frame in frames if frame.filename != config_dict.__file__][-1]
        raise errors.BadInput(
            f"--config={path}: {explain(error)} ({own.filename}, line {own.lineno})"
        ) from error
    if not isinstance(config, config_dict.ConfigDict):
        raise errors.BadInput(
            f"--config={path}: get_config() returns {config!r:.40}, which is not a"
            f" config. {_CURE}"
        )
    check_whole(f"--config={path}", config)
    return config


def _check_python(path: str) -> None:
    """Raises BadInput if `path` cannot be compiled; executes nothing."""
    try:
        with open(path, "rb") as file:
            compile(file.read(), path, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        raise errors.BadInput(
            f"--config={path} is not a Python file with get_config(): {error}."
        ) from error


def _get_config(path: str, arguments: list[str]) -> Any:
    get_config = runpy.run_path(path).get("get_config")
    if not callable(get_config):
        raise errors.BadInput(f"--config={path} defines no get_config().")
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        raise errors.BadInput(
            f"--config={path} has no variants. Remove :{arguments[0]}."
            if arguments
            else f"--config={path} needs a variant. Use --config={path}:VARIANT."
        ) from error
    return get_config(*arguments)


def explain(error: Any) -> str:
    """Turns a ConfigDict's error on a field or its value into a sentence."""
    while isinstance(error, Exception):
        error = error.args[0]
    text = str(error).replace(" (reference)", "")
    dotted, unknown = _DOTTED_KEY.search(text), _UNKNOWN_KEY.match(text)
    if dotted:
        return (
            f"{dotted[1]!r} has a dot, which no name in a config may have. Rename it."
        )
    if not unknown:
        return f"{text.partition(chr(10))[0].rstrip('.')}."
    meant = _MEANT_KEY.search(text)
    hint = f" Did you mean {meant[1]!r}?" if meant else ""
    return f"there is no field {unknown[1]!r}.{hint}"


def check_whole(source: str, config: config_dict.ConfigDict) -> None:
    """Checks that `config` has exactly the fields of the base config.

    Raises:
      BadInput: with `source`, where the config is from.
    """
    whole = base.get_base_config()
    fields = fields_lib.flatten(config)
    missing = [key for key in fields_lib.flatten(whole) if fields.get(key) is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise errors.BadInput(f"{source} lacks {', '.join(missing[:3])}{more}. {_CURE}")
    try:
        whole.update(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.BadInput(f"{source}: {explain(error)}") from error
