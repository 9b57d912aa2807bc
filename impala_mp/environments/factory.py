"""Factory of vector environments, from `config.environment`."""

import contextlib
import copy
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import torch

from impala_mp import errors, specs
from impala_mp.config import arguments, derived, fields, user_code
from impala_mp.environments import (
    atari,
    catch,
    closing,
    recall,
    spaces as spaces_lib,
    tasks,
    vector,
)

_BUILT_IN: dict[str, Callable[..., gymnasium.vector.VectorEnv[Any, Any, Any]]] = {
    "Catch": catch.CatchVectorEnv,
    "Recall": recall.RecallVectorEnv,
}
_MUJOCO = "gymnasium.envs.mujoco"
_OLD_ATARI = re.compile(r"(\w+?)(?:-ram)?(NoFrameskip|Deterministic)?-v[04]")


def make(
    environment: Any,
    num_envs: int,
    *,
    training: bool = True,
    render_mode: str | None = None,
    task: int = 0,
) -> vector.VectorEnvironment:
    """Makes `num_envs` copies of the environment in `config.environment`.

    Args:
      environment: has `id`, `kwargs` and `ignored`.
      training: False plays full games, even if a lost life ends a training episode.
      render_mode: "rgb_array" to draw pictures.
      task: number of the task, modulo the number of tasks.

    Raises:
      BadInput: there is no such environment, its extra is not installed, it does not
        take these arguments, or its spaces are not supported.
    """
    ids = derived.task_names(environment)
    default_dtype = torch.get_default_dtype()
    try:
        if len(ids) == 1:
            return _make_one(environment, ids[0], num_envs, training, render_mode)
        number = task % len(ids)
        own = _make_one(environment, ids[number], num_envs, training, render_mode)
        return tasks.TaskEnvironment(own, number, _joint_spec(environment))
    finally:  # an environment may have set another one, for the whole process
        torch.set_default_dtype(default_dtype)


def _joint_spec(environment: Any) -> specs.EnvironmentSpec:
    """Returns the joint spec of all tasks, from one copy of each."""
    ids, parts, spaces = derived.task_names(environment), [], []
    for name in ids:
        made = _make_one(environment, name, 1, True, None)
        parts.append(made.spec)
        spaces.append(made.unwrapped.single_observation_space)
        made.close()
    spaces_lib.check_ignored(environment.ignored, spaces)
    return tasks.joint_spec(ids, parts)


def _make_one(
    environment: Any,
    name: str,
    num_envs: int,
    training: bool,
    render_mode: str | None,
) -> vector.VectorEnvironment:
    kwargs = arguments.plain(environment.kwargs)
    if name in _BUILT_IN:
        _check_arguments(name, _BUILT_IN[name], kwargs, {"num_envs", "render_mode"})
        built_in = _BUILT_IN[name](num_envs, render_mode=render_mode, **kwargs)
        return _adapted(built_in, environment)
    factory = _own_factory(name)
    if factory:
        made = _make_own(name, factory, num_envs, kwargs, render_mode)
        return _adapted(made, environment)
    spec = _find(name)
    if _is_atari(spec):
        return _make_atari(spec, num_envs, training, kwargs)
    made = _make(spec, num_envs, kwargs, render_mode)
    return _adapted(made, environment)


def _adapted(
    made: gymnasium.vector.VectorEnv[Any, Any, Any], environment: Any
) -> vector.VectorEnvironment:
    try:
        return vector.VectorEnvironment(made, environment.ignored)
    except BaseException:
        closing.close(made)
        raise


@contextlib.contextmanager
def _copies() -> Iterator[list[gymnasium.Env[Any, Any]]]:
    """Yields a list for single copies, which are closed if its context fails."""
    made: list[gymnasium.Env[Any, Any]] = []
    try:
        yield made
    except BaseException:
        closing.close_each(made)
        raise


def probe(environment: Any) -> specs.EnvironmentSpec:
    """Returns the spec of `make`'s environment, from one copy that is closed again.

    Raises:
      BadInput: as in `make`, or an ignored path is not in the observation.
    """
    made = make(environment, 1)
    try:
        if made.spec.num_tasks == 1:
            space = made.unwrapped.single_observation_space
            spaces_lib.check_ignored(environment.ignored, [space])
        return made.spec
    finally:
        made.close()


def _find(name: str) -> gymnasium.envs.registration.EnvSpec:
    """Imports the extra that registers `name`; returns its spec."""
    module, plain = user_code.split_id(name)
    for prefix, (registers, extra) in user_code.EXTRAS.items():
        if (
            plain.startswith(prefix)
            and not _is_of_another(plain, registers)
            and (not module or user_code.is_extra(module, plain))
        ):
            _import_extra(name, registers, extra)
    _refuse_old_atari(name, plain)
    try:
        return gymnasium.spec(plain)
    except gymnasium.error.Error as error:
        known = [*_BUILT_IN, *gymnasium.registry]
        raise errors.BadInput(
            f"environment.id ({name!r}) is not registered with Gymnasium"
            f"{' and names no factory' if ':' in name else ''}."
            f"{fields.nearest(plain, known)} Set config.environment.id."
        ) from error


def _is_of_another(plain: str, module_name: str) -> bool:
    """Returns True if another package than that of the module has registered it."""
    spec = gymnasium.registry.get(plain)
    if spec is None:
        return False
    package = str(spec.entry_point).partition(":")[0].partition(".")[0]
    return package != module_name.partition(".")[0]


def _refuse_old_atari(name: str, plain: str) -> None:
    """Refuses Atari ids of v0 and v4, which have no vector environment.

    Raises:
      BadInput: with the id to use.
    """
    match = _OLD_ATARI.fullmatch(plain)
    if not match or _is_of_another(plain, "ale_py"):
        return
    try:
        importlib.import_module("ale_py")
    except ImportError as error:
        if match[2]:  # no other ids are called so
            raise _missing_extra(name, "atari") from error
        return
    new = f"ALE/{match[1]}-v5"
    if new in gymnasium.registry:
        raise errors.BadInput(
            f"environment.id ({name!r}) is an old Atari id, whose frames come one by"
            f" one and unscaled. Set config.environment.id={new}; without sticky"
            " actions, as in v4, config.environment.kwargs.repeat_action_probability=0."
        )


def _is_atari(spec: gymnasium.envs.registration.EnvSpec) -> bool:
    """Returns True for ale-py's vector environment, under any id."""
    if spec.vector_entry_point is None:
        return False
    creator = _creator(spec.vector_entry_point)
    ale = sys.modules.get("ale_py.vector_env")
    return (
        ale is not None
        and inspect.isclass(creator)
        and issubclass(creator, ale.AtariVectorEnv)
    )


def _import_extra(name: str, module_name: str, extra: str) -> None:
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _missing_extra(name, extra) from error
    if extra == "minatar" and "MinAtar/Breakout-v1" not in gymnasium.registry:
        module.register_envs()
    else:
        gymnasium.register_envs(module)


def _missing_extra(name: str, extra: str) -> errors.BadInput:
    return errors.BadInput(
        f"environment.id ({name!r}) needs an extra that is not installed. Run pip"
        f" install 'impala_mp[{extra}]'."
    )


def _own_factory(name: str) -> Callable[..., Any] | None:
    """Returns the factory of "module:factory"; None if `name` is a registered id."""
    module_name, plain = user_code.split_id(name)
    if not module_name or user_code.is_extra(module_name, plain):
        return None
    module = user_code.import_module("environment.id", name, module_name)
    return None if plain in gymnasium.registry else getattr(module, plain, None)


def _make_own(
    name: str,
    factory: Callable[..., Any],
    num_envs: int,
    kwargs: dict[str, Any],
    render_mode: str | None,
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Calls the factory once if it takes num_envs, otherwise once per copy."""
    _check_arguments(name, factory, kwargs, {"num_envs", "render_mode"})
    parameters = inspect.signature(factory).parameters
    if render_mode and "render_mode" in parameters:
        kwargs["render_mode"] = render_mode
    if "num_envs" in parameters:
        made = factory(num_envs=num_envs, **kwargs)
        _check_type(name, made, gymnasium.vector.VectorEnv)
        return made

    def one() -> gymnasium.Env[Any, Any]:
        env = factory(**copy.deepcopy(kwargs))  # which this copy may change
        _check_type(name, env, gymnasium.Env)
        copies.append(env)
        return env

    with _copies() as copies:
        return gymnasium.vector.SyncVectorEnv([one] * num_envs)


def _check_type(name: str, made: Any, expected: type) -> None:
    if not isinstance(made, expected):
        raise errors.BadInput(
            f"environment.id ({name!r}) returns a {type(made).__name__}. It must return"
            " a gymnasium.VectorEnv if it takes num_envs, otherwise a gymnasium.Env."
            f" Return a gymnasium.{expected.__name__}."
        )


def _make(
    spec: gymnasium.envs.registration.EnvSpec,
    num_envs: int,
    kwargs: dict[str, Any],
    render_mode: str | None,
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    own = spec.vector_entry_point
    entry_point = _creator(own or spec.entry_point)
    limit = set() if own else {"max_episode_steps"}  # of Gymnasium's `make`
    given = {name: value for name, value in kwargs.items() if name not in limit}
    _check_arguments(spec.id, entry_point, given, {"num_envs", "render_mode"})
    if render_mode and _takes(entry_point, "render_mode"):
        kwargs["render_mode"] = render_mode
    if own:
        _check_limit(spec, entry_point)
        return gymnasium.make_vec(
            spec, num_envs, vectorization_mode="vector_entry_point", **kwargs
        )
    # "sync": an actor is a separate process already. The checker wraps every step.
    spec = copy.deepcopy(spec)
    spec.disable_env_checker = True
    try:
        return _make_sync(spec, num_envs, kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        if str(spec.entry_point).startswith(_MUJOCO):
            raise _missing_extra(spec.id, "mujoco") from error
        raise errors.BadInput(f"environment.id ({spec.id!r}): {error}") from error


def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return takes_any or name in parameters


def _check_limit(
    spec: gymnasium.envs.registration.EnvSpec, entry_point: Callable[..., Any]
) -> None:
    """Raises BadInput if Gymnasium would pass on a limit that nothing takes."""
    if spec.max_episode_steps is None or _takes(entry_point, "max_episode_steps"):
        return
    raise errors.BadInput(
        f"environment.id ({spec.id!r}) is registered with max_episode_steps"
        f" {spec.max_episode_steps}, which its vector environment does not take. Add"
        " the argument max_episode_steps to it, or register it without the limit."
    )


def _make_sync(
    spec: gymnasium.envs.registration.EnvSpec, num_envs: int, kwargs: dict[str, Any]
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    def noted(env: gymnasium.Env[Any, Any]) -> Any:
        copies.append(env)
        return env

    with _copies() as copies:
        made = gymnasium.make_vec(
            spec, num_envs, vectorization_mode="sync", wrappers=[noted], **kwargs
        )
    if made.unwrapped.spec:
        made.unwrapped.spec.kwargs.pop("wrappers", None)
    return made


def _make_atari(
    spec: gymnasium.envs.registration.EnvSpec,
    num_envs: int,
    training: bool,
    kwargs: dict[str, Any],
) -> atari.AtariEnvironment:
    fixed = {
        "num_envs",
        "num_threads",
        "batch_size",
        "reward_clipping",  # the learner clips; reported returns are unclipped
        "autoreset_mode",
        "life_loss_info",
        "continuous",
        "game",
    }
    episodic_life = bool(kwargs.pop("episodic_life", False)) and training
    entry_point = _creator(spec.vector_entry_point)
    _check_arguments(spec.id, entry_point, kwargs, fixed)
    envs = gymnasium.make_vec(
        spec,
        num_envs,
        vectorization_mode="vector_entry_point",
        num_threads=1,
        reward_clipping=False,
        **kwargs,
    )
    frames = {"frameskip": 4, **spec.kwargs, **kwargs}["frameskip"]
    return atari.AtariEnvironment(envs, episodic_life, frames)


def _creator(entry_point: Any) -> Callable[..., Any]:
    if callable(entry_point):
        return entry_point
    return gymnasium.envs.registration.load_env_creator(entry_point)


def _check_arguments(
    name: str, function: Callable[..., Any], kwargs: dict[str, Any], fixed: set[str]
) -> None:
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [key for key in parameters if key not in {*fixed, "self"}]
    for key in kwargs:
        if key not in known:
            raise errors.BadInput(
                f"environment.kwargs.{key} is not an argument of {name}, which takes"
                f" {', '.join(known) or 'none'}. Set config.environment.kwargs."
            )
