"""Vector environments by the ids that Gymnasium knows."""

import contextlib
import copy
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

import gymnasium

from impala_mp import errors
from impala_mp.config import fields, user_code
from impala_mp.environments import atari, closing, contract

_MUJOCO = "gymnasium.envs.mujoco"
_OLD_ATARI = re.compile(r"(\w+?)(?:-ram)?(NoFrameskip|Deterministic)?-v[04]")


def find(name: str, built_in: Collection[str]) -> gymnasium.envs.registration.EnvSpec:
    """Imports the extra that registers `name`; returns its spec.

    Raises:
      BadInput: there is no such id, also not among those that are `built_in`, or its
        extra is not installed.
    """
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
        known = [*built_in, *gymnasium.registry]
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


def is_atari(spec: gymnasium.envs.registration.EnvSpec) -> bool:
    """Returns True for ale-py's vector environment, under any id."""
    if spec.vector_entry_point is None:
        return False
    creator = _creator(spec, spec.vector_entry_point)
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


def make(
    spec: gymnasium.envs.registration.EnvSpec,
    num_envs: int,
    kwargs: dict[str, Any],
    render_mode: str | None,
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    own = spec.vector_entry_point
    entry_point = _creator(spec, own or spec.entry_point)
    _check_entry_point(spec, entry_point, kwargs, is_vector=own is not None)
    if render_mode and takes(entry_point, "render_mode"):
        kwargs["render_mode"] = render_mode
    if own:
        _check_limit(spec, entry_point)
        return gymnasium.make_vec(
            spec, num_envs, vectorization_mode="vector_entry_point", **kwargs
        )
    # "sync": an actor is a separate process already. The checker wraps every step.
    spec = copy.deepcopy(spec)
    spec.disable_env_checker = True
    with _needs_packages(spec):
        return _make_sync(spec, num_envs, kwargs)


def takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return takes_any or name in parameters


def _check_entry_point(
    spec: gymnasium.envs.registration.EnvSpec,
    entry_point: Callable[..., Any],
    kwargs: Collection[str],
    *,
    is_vector: bool,
) -> None:
    """Raises BadInput unless it takes `kwargs`, and a class is of Gymnasium's class."""
    limit = {"max_episode_steps"}  # Gymnasium gives it to vector environments only
    own = kwargs if is_vector else {*kwargs} - limit
    given = {*spec.kwargs, *(limit if spec.max_episode_steps and is_vector else ())}
    fixed = {"num_envs", "render_mode"}
    contract.check_arguments(spec.id, entry_point, own, fixed, given)
    if inspect.isclass(entry_point):
        kind = gymnasium.vector.VectorEnv if is_vector else gymnasium.Env
        contract.check_type(spec.id, entry_point, kind)


def _check_limit(
    spec: gymnasium.envs.registration.EnvSpec, entry_point: Callable[..., Any]
) -> None:
    """Raises BadInput if Gymnasium would pass on a limit that nothing takes."""
    if spec.max_episode_steps is None or takes(entry_point, "max_episode_steps"):
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
        contract.check_single(spec.id, env)
        return env

    with closing.if_failing() as copies:
        made = gymnasium.make_vec(
            spec, num_envs, vectorization_mode="sync", wrappers=[noted], **kwargs
        )
    if made.unwrapped.spec:
        made.unwrapped.spec.kwargs.pop("wrappers", None)
    return made


def make_single(
    spec: gymnasium.envs.registration.EnvSpec,
    kwargs: dict[str, Any],
    render_mode: str | None,
) -> gymnasium.Env[Any, Any]:
    """Makes one copy."""
    entry_point = _creator(spec, spec.entry_point)
    _check_entry_point(spec, entry_point, kwargs, is_vector=False)
    if render_mode and takes(entry_point, "render_mode"):
        kwargs = {**kwargs, "render_mode": render_mode}
    return gymnasium.make(spec, disable_env_checker=True, **kwargs)


def make_atari(
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
    entry_point = _creator(spec, spec.vector_entry_point)
    contract.check_arguments(spec.id, entry_point, kwargs, fixed, spec.kwargs)
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


def _creator(
    spec: gymnasium.envs.registration.EnvSpec, entry_point: Any
) -> Callable[..., Any]:
    if callable(entry_point):
        return entry_point
    with _needs_packages(spec):  # some modules raise when they are imported
        return gymnasium.envs.registration.load_env_creator(entry_point)


@contextlib.contextmanager
def _needs_packages(spec: gymnasium.envs.registration.EnvSpec) -> Iterator[None]:
    """Raises BadInput with the cure where an environment lacks a package."""
    try:
        yield
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        if str(spec.entry_point).startswith(_MUJOCO):
            raise _missing_extra(spec.id, "mujoco") from error
        if isinstance(error, ImportError):
            raise  # perhaps a mistake in a user's module
        raise errors.BadInput(f"environment.id ({spec.id!r}): {error}") from error
