"""Contract of the user's environments: how they are called, and what they return."""

import inspect
import types
from collections.abc import Collection
from typing import Any

import gymnasium

from impala_mp import errors

_SPACES = "observation_space", "action_space"
_FACTORIES = "parallel_env", "env"  # in the module of a game of PettingZoo


def check_arguments(
    name: str,
    function: Any,
    kwargs: Collection[str],
    fixed: Collection[str],
    given: Collection[str] = (),
) -> None:
    """Checks that the factory with the id `name` can be called.

    Args:
      kwargs: names of the arguments in `config.environment.kwargs`.
      fixed: names that these may not have.
      given: names of further arguments that it gets beside num_envs.

    Raises:
      BadInput: it is no function, takes no such argument, or requires another one.
    """
    if not callable(function):
        raise _uncallable(name, function)
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    known = [key for key in named if key not in fixed]
    for key in kwargs:
        if not takes_any and key not in known:
            raise errors.BadInput(
                f"environment.kwargs.{key} is not an argument of {name}, which takes"
                f" {', '.join(known) or 'none'}. Set config.environment.kwargs."
            )
    # A decorator may give arguments by itself.
    called = inspect.signature(function, follow_wrapped=False).parameters
    for key, parameter in named.items():
        is_required = key in called and parameter.default is parameter.empty
        if is_required and key not in {"num_envs", *kwargs, *given}:
            cure = f"Set config.environment.kwargs.{key}"
            raise errors.BadInput(
                f"{name} requires the argument {key}, which is not given."
                f" {cure if key in known else 'Let it have a default value'}."
            )


def _uncallable(name: str, found: Any) -> errors.BadInput:
    cure = ""
    if isinstance(found, types.ModuleType):
        names = [each for each in _FACTORIES if hasattr(found, each)]
        cure = f"={found.__name__}:{names[0]}" if names else ""
    return errors.BadInput(
        f"environment.id ({name!r}) is a {type(found).__name__}. It must be a class, or"
        f" a function that returns an environment. Set config.environment.id{cure}."
    )


def check_type(name: str, kind: type, expected: type) -> None:
    """Refuses environments of a wrong class.

    Raises:
      BadInput: `kind`, which the id `name` returns, is not of the class `expected`.
    """
    if not issubclass(kind, expected):
        raise errors.BadInput(
            f"environment.id ({name!r}) returns a {kind.__name__}. It must return"
            " a gymnasium.VectorEnv if it takes num_envs, otherwise a gymnasium.Env, or"
            f" a game of PettingZoo. Return a gymnasium.{expected.__name__}."
        )


def check_single(name: str, env: Any) -> None:
    """Refuses anything but a single environment with spaces.

    Raises:
      BadInput: it is not a gymnasium.Env with two spaces.
    """
    check_type(name, type(env), gymnasium.Env)
    check_spaces(name, env)


def check_vector(name: str, envs: Any, num_envs: int) -> None:
    """Refuses a vector environment without spaces or of another size.

    Raises:
      BadInput: the spaces of a copy are missing, or it has not `num_envs` copies.
    """
    check_count(name, getattr(envs, "num_envs", None), num_envs)
    check_spaces(name, envs, "single_")


def check_count(name: str, count: int | None, expected: int) -> None:
    """Refuses a factory that ignores num_envs.

    Raises:
      BadInput: it made `count` environments where `expected` were asked for.
    """
    if count != expected:
        raise errors.BadInput(
            f"environment.id ({name!r}) returns {count} environments for"
            f" num_envs={expected}. It must return as many as num_envs. Use the"
            " argument in the factory."
        )


def check_spaces(name: str, env: Any, prefix: str = "") -> None:
    """Refuses an environment, or a vector of them, without spaces.

    Raises:
      BadInput: an attribute, after the `prefix`, is no gymnasium.Space.
    """
    for attribute in _SPACES:
        _check_space(name, f"{prefix}{attribute}", _get(env, f"{prefix}{attribute}"))


def check_spaces_of(name: str, game: Any, player: str) -> None:
    """Refuses a game of PettingZoo without the spaces of a player.

    Raises:
      BadInput: a method does not return a gymnasium.Space.
    """
    for attribute in _SPACES:
        method = _get(game, attribute)
        found = method(player) if callable(method) else method
        _check_space(name, f"{attribute}({player!r})", found)


def _get(env: Any, attribute: str) -> Any:
    """Returns an attribute, or None if it is missing."""
    try:
        return getattr(env, attribute)
    except AttributeError as error:
        if error.name != attribute:  # in the user's property
            raise
        return None


def _check_space(name: str, attribute: str, found: Any) -> None:
    if isinstance(found, gymnasium.Space):
        return
    kind = type(found)
    what = "missing" if found is None else f"a {kind.__module__}.{kind.__qualname__}"
    raise errors.BadInput(
        f"environment.id ({name!r}): {attribute} is {what}. It must be a"
        " gymnasium.Space, such as gymnasium.spaces.Discrete(2). Set it in the"
        " environment."
    )
