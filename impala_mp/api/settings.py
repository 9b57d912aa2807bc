"""Config of a training from Python values: keywords, dicts, classes and functions."""

import importlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from ml_collections import config_dict

from impala_mp import errors
from impala_mp.cli import command_line, config_file, what
from impala_mp.config import (
    arguments,
    base as base_lib,
    by_value,
    derived,
    fields as fields_lib,
    presets,
    user_code,
)

_NETWORK_CODE = ("network.torso", "network.core")
_OPEN = tuple(f"{group}." for group in command_line.OPEN)
_POLICY = re.compile(rf"{command_line.POLICIES}(\.[^.]+)?")  # all of them, or one


class Registered:
    """Factory of an id that only the caller's process has registered."""

    def __init__(self, spec: gymnasium.envs.registration.EnvSpec) -> None:
        self.__name__ = spec.id
        self._spec = spec

    def __call__(self, *, render_mode: str | None = None, **kwargs: Any) -> Any:
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        return gymnasium.make(self._spec, disable_env_checker=True, **kwargs)


def make(
    environment: Any, config: Any, given: Mapping[str, Any], folder: str
) -> config_dict.ConfigDict:
    """Returns the config of a training.

    Args:
      environment: an id or a preset, a class or function, or a sequence of them as
        tasks; None: as in the config.
      config: a ConfigDict or FILE.py[:VARIANT]; None: the base config.
      given: fields by dotted name, or groups as nested dicts.
      folder: takes the code that no module has.

    Raises:
      BadInput: an unknown field, a value of another type, or code that cannot be sent.
    """
    if config is None and isinstance(environment, str) and _is_preset(environment):
        named = what.resolve(environment)
        config, environment = command_line.load([f"--config={named.config}"]), None
    made = _start(config)
    for name, value in given.items():
        _assign(made, name, value, folder)
    if environment is not None:
        several = isinstance(environment, (list, tuple))
        parts = environment if several else [environment]
        names = [_environment_name(each, folder) for each in parts]
        made.environment.id = ",".join(names)
    return made


def short_name(config: Any) -> str:
    """Returns the names of the tasks, without modules, as one name of a folder."""
    names = [each.rpartition(":")[2] for each in derived.task_names(config.environment)]
    return re.sub(r"[^\w.+\-]", "-", "+".join(names)).lstrip(".") or "run"


def _is_preset(name: str) -> bool:
    """Returns whether `impala-train NAME` takes a preset; refuses a run's folder."""
    if os.path.lexists(os.path.join(name, "config.json")):
        raise errors.BadInput(
            f"{name!r} is the folder of a run. To resume it, use workdir={name!r}"
            " without an environment."
        )
    plain = presets.named(name.partition(":")[0])
    return plain is not None or presets.for_environment(name) is not None


def _start(config: Any) -> config_dict.ConfigDict:
    if config is None:
        return base_lib.get_base_config()
    if isinstance(config, str):
        loaded: config_dict.ConfigDict = command_line.load([f"--config={config}"])
        return loaded
    if isinstance(config, config_dict.ConfigDict):
        return config.copy_and_resolve_references()
    raise errors.BadInput(
        f"config is a {type(config).__name__}. It must be a ConfigDict or the name of"
        " an experiment. Start from impala_mp.config.get_base_config(), or give the"
        " fields by keyword."
    )


# Fields.


def _assign(config: Any, name: str, value: Any, folder: str) -> None:
    """Sets a field, or each field of a group that is given as a dict."""
    if _is_group(name):
        if not isinstance(value, (Mapping, config_dict.ConfigDict)):
            raise _refusal(name, value, "a dict of its fields")
        for key, each in value.items():
            _assign(config, f"{name}.{key}", each, folder)
        return
    found = _converted(name, value, folder)
    try:
        with config.unlocked():
            command_line.place(config, name)[name.rpartition(".")[2]] = found
    except (TypeError, ValueError) as error:
        field = base_lib.BY_NAME.get(name)
        if field is None:
            raise errors.BadInput(f"{name}: {config_file.explain(error)}") from error
        kind = type(field.default).__name__
        raise _refusal(name, value, f"of type {kind}") from error


def _is_group(name: str) -> bool:
    field = fields_lib.without_policy(name)
    return (
        _POLICY.fullmatch(name) is not None
        or field in command_line.OPEN
        or any(each.startswith(f"{field}.") for each in base_lib.BY_NAME)
    )


def _refusal(name: str, value: Any, kind: str) -> errors.BadInput:
    return errors.BadInput(
        f"{name} ({value!r:.200}) must be {kind}. Set config.{name}."
    )


def _converted(name: str, value: Any, folder: str) -> Any:
    """Returns `value` in the type of the field, where it stands for the same value."""
    known = fields_lib.without_policy(name)
    if known in _NETWORK_CODE or known.startswith("network.encoders."):
        return _code_name(name, value, folder)
    if known.startswith(_OPEN):
        return _argument(name, value, folder)
    if known not in base_lib.BY_NAME:
        raise command_line.no_field(name, list(base_lib.BY_NAME))
    field = base_lib.BY_NAME[known]
    if known == "environment.id" and not isinstance(value, str):
        return _environment_name(value, folder)
    if value is None:
        raise _refusal(name, value, f"of type {type(field.default).__name__}")
    if field.automatic and isinstance(value, str) and value == "auto":
        return 0
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(field.default, tuple) and isinstance(value, list):
        return tuple(value)
    if known == "stop.target_return" and isinstance(value, (int, float)):
        return str(value)
    is_whole = type(field.default) is int and isinstance(value, float)
    return int(value) if is_whole and value.is_integer() else value


def _argument(field: str, value: Any, folder: str) -> Any:
    """Returns an argument of the environment; code that no module has goes by value."""
    if isinstance(value, dict):
        return {k: _argument(f"{field}.{k}", v, folder) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_argument(field, each, folder) for each in value)
    is_code = isinstance(value, type) or (callable(value) and _is_function(value))
    if is_code and not _is_importable(value):
        return arguments.Reference(by_value.save(field, value, folder))
    return value


def _is_function(value: Any) -> bool:
    return hasattr(value, "__code__") or hasattr(value, "__wrapped__")


# Code.


def _environment_name(environment: Any, folder: str) -> str:
    field = "environment.id"
    if isinstance(environment, str):
        spec = gymnasium.registry.get(environment)
        if spec is None or _is_known_elsewhere(environment, spec):
            return environment
        return by_value.save(field, Registered(spec), folder)
    if isinstance(environment, gymnasium.envs.registration.EnvSpec):
        return by_value.save(field, Registered(environment), folder)
    if isinstance(environment, (gymnasium.Env, gymnasium.vector.VectorEnv)):
        raise errors.BadInput(
            f"{field} is an environment ({str(environment):.80}), and each process"
            " needs its own copies. Give its class, or a function that makes one."
        )
    return _code_name(field, environment, folder)


def _is_known_elsewhere(name: str, spec: gymnasium.envs.registration.EnvSpec) -> bool:
    """Returns True if other processes register this id, too."""
    entry_point = spec.vector_entry_point or spec.entry_point
    if not isinstance(entry_point, str):
        return False
    package = entry_point.partition(":")[0].partition(".")[0]
    plugins = importlib.metadata.entry_points(group="gymnasium.envs")
    packages = {each.module.partition(".")[0] for each in plugins}
    return package in {"gymnasium", *packages} or name.startswith(
        tuple(user_code.EXTRAS)
    )


def _code_name(field: str, value: Any, folder: str) -> str:
    """Returns module:name of a class or function, or a name by value."""
    if isinstance(value, str):
        return value
    torch = sys.modules.get("torch")
    is_module = torch is not None and isinstance(value, torch.nn.Module)
    if is_module or not callable(value):
        raise errors.BadInput(
            f"{field} is a {type(value).__name__} ({value!r:.80}). Give a name, a class"
            " or a function that makes one."
        )
    if _is_importable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return by_value.save(field, value, folder)


def _is_importable(value: Any) -> bool:
    """Returns True if another process finds `value` at the top level of a module."""
    module_name = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(name, str):
        return False
    module = sys.modules.get(module_name)
    has_file = getattr(module, "__spec__", None) is not None
    return (
        module_name != "__main__" and has_file and getattr(module, name, None) is value
    )
