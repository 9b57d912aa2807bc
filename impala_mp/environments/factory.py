"""Factory of vector environments, from `config.environment`."""

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import torch

from impala_mp import errors, specs
from impala_mp.config import arguments, base, derived, user_code
from impala_mp.environments import (
    catch,
    closing,
    connect,
    contract,
    games,
    recall,
    registered,
    roster,
    several,
    spaces as spaces_lib,
    tasks,
    vector,
    vector_games,
)

_NOT_ARGUMENTS = {"num_envs", "render_mode"}
_BUILT_IN: dict[str, Callable[..., Any]] = {
    "Catch": catch.CatchVectorEnv,
    "Connect": connect.Connect,
    "Recall": recall.RecallVectorEnv,
}


def make(
    environment: Any,
    num_envs: int,
    *,
    training: bool = True,
    render_mode: str | None = None,
    task: int = 0,
) -> vector.VectorEnvironment:
    """Makes `num_envs` copies of the environment in `config.environment`.

    A game counts as one copy per player; if they do not come out even, there are a few
    more.

    Args:
      environment: `config.environment`.
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
        _refuse(environment.id, environment, "privileged")
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
        spaces += made.observation_spaces
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
        contract.check_arguments(name, _BUILT_IN[name], kwargs, _NOT_ARGUMENTS)
        kwargs["render_mode"] = render_mode
        made = _make_vector(name, _BUILT_IN[name], num_envs, kwargs)
        return _adapted(name, made, environment, num_envs)
    factory = _own_factory(name)
    if factory is not None:
        made = _make_own(
            name, factory, num_envs, kwargs, render_mode, environment.tuples_are_players
        )
        return _adapted(name, made, environment, num_envs)
    spec = registered.find(name, _BUILT_IN)
    if registered.is_atari(spec):
        _refuse(name, environment, *_NEEDS)
        return registered.make_atari(spec, num_envs, training, kwargs)
    if environment.tuples_are_players:
        make_single = functools.partial(
            registered.make_single, spec, kwargs, render_mode
        )
        made = _make_own(name, make_single, num_envs, {}, None, tuples_are_players=True)
        return _adapted(name, made, environment, num_envs)
    made = registered.make(spec, num_envs, kwargs, render_mode)
    return _adapted(name, made, environment, num_envs)


def _adapted(
    name: str, made: Any, environment: Any, num_envs: int
) -> vector.VectorEnvironment:
    """Adapts a vector environment, a VectorGame, or a list of games.

    Raises:
      BadInput: a space is not supported, a field has no effect, or a vector environment
        has another number of copies.
    """
    ignored, shows_player = environment.ignored, environment.shows_player
    deal = functools.partial(roster.deal, environment)
    source: vector_games.Source
    try:
        if isinstance(made, gymnasium.vector.VectorEnv):
            contract.check_vector(name, made, num_envs)
            _refuse(name, environment, *_OF_GAMES)
            return vector.VectorEnvironment(made, ignored, environment.privileged)
        _refuse(name, environment, "privileged")
        if not isinstance(made, list):
            count = _num_games(num_envs, made.players)
            contract.check_count(name, made.num_games, count)
            contract.check_spaces(name, made)
            _refuse(name, environment, "shows_state", "tuples_are_players")
            source = vector_games.Native(name, made, ignored, shows_player, deal)
        else:
            if not isinstance(made[0], games.Tuples):
                _refuse(name, environment, "tuples_are_players")
            shows_state = environment.shows_state
            source = vector_games.GameCopies(
                name, made, ignored, shows_player, shows_state, deal
            )
    except BaseException:
        if isinstance(made, gymnasium.vector.VectorEnv):
            closing.close(made)
        elif isinstance(made, list):
            closing.close_each([game.env for game in made])
        elif hasattr(made, "close"):
            closing.close_each([made])
        raise
    return several.SeveralEnvironment(source)


_NEEDS = {
    "policies": "a game of several players",
    "sharing": "a game of several players",
    "shows_player": "a game of several players",
    "shows_state": "the state() of PettingZoo's games",
    "tuples_are_players": "a Gymnasium environment with Tuple spaces",
    "privileged": "a single player and Dict observations",
}
_OF_GAMES = [field for field in _NEEDS if field != "privileged"]


def _refuse(name: str, environment: Any, *fields: str) -> None:
    for field in fields:
        default = base.BY_NAME[f"environment.{field}"].default
        if environment[field] and environment[field] != default:
            raise errors.BadInput(
                f"environment.{field} needs {_NEEDS[field]}, which environment.id"
                f" ({name!r}) has not. Set config.environment.{field}={default}."
            )


def probe(environment: Any) -> specs.EnvironmentSpec:
    """Returns the spec of `make`'s environment, from one copy that is closed again.

    Raises:
      BadInput: as in `probe_all`, or several policies play there.
    """
    found = probe_all(environment)
    if len(found) > 1:
        raise errors.BadInput(
            f"environment.id ({environment.id!r}) is played by several policies"
            f" ({', '.join(found)}), and this needs a single one. Set"
            f" config.environment.sharing={roster.ALL}, and no environment.policies."
        )
    return next(iter(found.values()))


def probe_all(environment: Any) -> dict[str, specs.EnvironmentSpec]:
    """Returns the specs of `make`'s environment by policy; "" is a single one.

    Raises:
      BadInput: as in `make`, or an ignored path is not in the observation.
    """
    made = make(environment, 1)
    try:
        if made.specs[0].num_tasks == 1:
            spaces_lib.check_ignored(environment.ignored, made.observation_spaces)
        return dict(zip(made.policies, made.specs, strict=True))
    finally:
        made.close()


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
    tuples_are_players: bool,
) -> Any:
    """Calls the factory once if it takes num_envs, otherwise once per copy.

    Returns:
      A vector environment, a VectorGame, or a list of games.
    """
    contract.check_arguments(name, factory, kwargs, _NOT_ARGUMENTS)
    parameters = inspect.signature(factory).parameters
    if render_mode and "render_mode" in parameters:
        kwargs["render_mode"] = render_mode
    if "num_envs" in parameters:
        return _make_vector(name, factory, num_envs, kwargs)

    def one() -> Any:
        env = factory(**copy.deepcopy(kwargs))  # which this copy may change
        if hasattr(env, "close"):
            copies.append(env)
        return env

    with closing.if_failing() as copies:
        first = one()
        if games.is_game(first):
            # Not before: only PettingZoo's factories are known to pass it on.
            if render_mode and registered.takes(factory, "render_mode"):
                kwargs["render_mode"] = render_mode
                closing.close_each([copies.pop()])
                first = one()
            return _all(num_envs, lambda env: games.adapt(name, env), first, one)
        contract.check_single(name, first)
        if tuples_are_players:
            return _all(num_envs, lambda env: games.Tuples(name, env), first, one)
        made = [first]

        def single() -> gymnasium.Env[Any, Any]:
            env = made.pop() if made else one()
            contract.check_single(name, env)
            return env

        return gymnasium.vector.SyncVectorEnv([single] * num_envs)


def _make_vector(
    name: str, factory: Callable[..., Any], num_envs: int, kwargs: dict[str, Any]
) -> Any:
    made = factory(num_envs=num_envs, **kwargs)
    if not hasattr(made, "num_games"):
        contract.check_type(name, type(made), gymnasium.vector.VectorEnv)
        return made
    count = _num_games(num_envs, made.players)
    if count == num_envs:
        return made
    if hasattr(made, "close"):
        made.close()
    return factory(num_envs=count, **kwargs)


def _all(
    num_envs: int,
    adapt: Callable[[Any], games.Game],
    first: Any,
    make_one: Callable[[], Any],
) -> list[games.Game]:
    """Returns games that have `num_envs` players in all, or a few more."""
    game = adapt(first)
    others = _num_games(num_envs, game.players) - 1
    return [game, *(adapt(make_one()) for _ in range(others))]


def _num_games(num_envs: int, players: Sequence[str]) -> int:
    return -(-num_envs // len(players))
