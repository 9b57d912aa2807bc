"""Random play of an environment, recorded on a tape that can be replayed."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from impala_mp import nest, specs, types
from impala_mp.environments import bad_data, factory, observation_watch, spaces, vector


class NothingAllowed(Exception):
    """An action mask that leaves no choice; the text is a full sentence."""


class RandomActions:
    """Source of actions [E, ...] of the environment, the same in every run."""

    def __init__(
        self, space: gymnasium.Space[Any], count: int, mask_path: str = ""
    ) -> None:
        """Takes the action space of one copy, and the mask's path in an observation.

        Without a mask, the space itself is sampled.

        Raises:
          BadInput: the space is not supported.
        """
        self._space = gymnasium.vector.utils.batch_space(space, count)
        self._space.seed(0)
        self._mask_path = mask_path
        self._spec = spaces.action_spec(space)
        self._generator = np.random.default_rng(0)

    def anything(self) -> types.Nest:
        """Draws from the whole space and ignores the mask."""
        return self._space.sample()

    def draw(self, observation: types.Nest, is_over: np.ndarray) -> types.Nest:
        """Draws actions that `observation` [E, ...] allows.

        Where `is_over`, bool [E], the environment ignores the action, and the mask is
        not checked.

        Raises:
          NothingAllowed: the mask leaves no choice.
        """
        if not self._mask_path:
            return self.anything()
        mask = nest.at(observation, self._mask_path)
        allowed = np.asarray(mask).reshape(len(mask), -1) != 0
        self._check(allowed[~is_over])
        ranks = np.where(allowed, self._generator.random(allowed.shape), -1.0)
        elements = [part.argmax(-1) for part in self._by_element(ranks)]
        action = np.stack(elements, -1) + np.atleast_1d(self._spec.start)
        shape = (len(mask), *self._spec.array.shape)
        return action.reshape(shape).astype(self._spec.dtype)

    def _by_element(self, rows: np.ndarray) -> list[np.ndarray]:
        """Splits [E, all choices] into the choices per element of an action."""
        sizes = np.atleast_1d(self._spec.num_actions)
        return np.split(rows, np.cumsum(sizes)[:-1], -1)

    def _check(self, allowed: np.ndarray) -> None:
        parts = self._by_element(allowed)
        for i, part in enumerate(parts):
            if not part.any(-1).all():
                where = f" for element {i} of an action" if len(parts) > 1 else ""
                raise NothingAllowed(
                    f"the mask {self._mask_path!r} allows no action{where}. An agent"
                    " would then play a forbidden one. Allow at least one."
                )


_MIN_STEPS, _MAX_STEPS = 300, 3000  # per copy; above the minimum until an episode ends
_MAX_SECS = 10.0  # of one play


class Row(NamedTuple):
    """Results of one step of all copies: [E] each."""

    observation: list[bytes]  # digests
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    @property
    def ended(self) -> np.ndarray:
        return self.terminated | self.truncated


class Tape(NamedTuple):
    """One play: row 0 is the reset; action t leads to row t + 1."""

    rows: list[Row]
    actions: list[types.Nest]
    step_secs: float  # mean, of one step of all copies
    changes_actions: bool  # step() wrote into the array that it was given
    numbers: tuple[str, ...] = ()  # names of those that `info` has at an end

    @property
    def num_envs(self) -> int:
        return len(self.rows[0].reward)

    def lengths(self, index: int) -> list[int]:
        """Returns the steps of each finished episode of one copy."""
        ends = [t for t, row in enumerate(self.rows) if row.ended[index]]
        starts = [0, *(t + 1 for t in ends)]  # the rows of resets
        return [end - start for start, end in zip(starts, ends, strict=False)]


class RandomPlay:
    """Plays of one environment from the same seeds, one at a time."""

    def __init__(self, environment: Any, seeds: list[int], mask_path: str = "") -> None:
        """Takes `config.environment` and the mask's path in an observation.

        Raises:
          BadInput: the mask does not fit the actions.
          Broken: `reset` or `step` does not return Gymnasium's values.
        """
        self._environment, self._seeds = environment, seeds
        made = factory.make(environment, 1)
        try:
            self.action = made.spec.action
            space = made.unwrapped.single_action_space
            masked = dataclasses.replace(made.spec, action_mask=mask_path)
            specs.check_mask(masked)
            self._draws = RandomActions(space, len(seeds), mask_path)
            for single in _singles(made.unwrapped.unwrapped):
                _check_results(single.unwrapped, seeds[0], bool(mask_path))
        finally:
            made.close()

    def first(self) -> tuple[Tape, observation_watch.Watch]:
        """Plays random actions until an episode has ended or time is up."""

        def choose(
            t: int, has_ended: bool, secs: float, observation: Any, last: Row
        ) -> types.Nest:
            if t >= _MAX_STEPS or secs > _MAX_SECS or (t >= _MIN_STEPS and has_ended):
                return None
            try:
                return self._draws.draw(observation, last.ended)
            except NothingAllowed as error:
                raise observation_watch.Broken(
                    f"after {t} random steps {error}"
                ) from error

        made = factory.make(self._environment, len(self._seeds))
        space = made.unwrapped.single_observation_space
        watch = observation_watch.Watch(made.spec.observation, space)
        if singles := _singles(made.unwrapped):
            watched = [
                observation_watch.Watched(env, watch, i)
                for i, env in enumerate(singles)
            ]
            made.unwrapped.envs = watched
            arrays = observation_watch.class_arrays(singles[0].unwrapped)
            before = {name: np.array(array) for name, array in arrays.items()}
            tape = self._play(made, choose, lambda observation: None)
            for name, array in arrays.items():
                if not np.array_equal(array, before[name]):
                    watch.shared = name
            return tape, watch
        count = len(self._seeds)
        see = lambda observation: watch.see(observation, count)  # noqa: E731
        return self._play(made, choose, see), watch

    def again(self, actions: list[types.Nest]) -> Tape:
        """Plays again with these actions."""
        made = factory.make(self._environment, len(self._seeds))
        upcoming = iter(actions)
        return self._play(made, lambda *_: next(upcoming, None), lambda _: None)

    def others(self, actions: types.Nest, where: np.ndarray) -> types.Nest:
        """Copies `actions` [E, ...], drawn again where `where`, bool [E], is true."""

        def choose(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            chosen = np.array(old)
            chosen[where] = new[where]
            return chosen

        return nest.map_structure(choose, actions, self._draws.anything())

    def _play(
        self,
        made: vector.VectorEnvironment,
        choose: Callable[[int, bool, float, Any, Row], types.Nest],
        see: Callable[[Any], None],
    ) -> Tape:
        """Plays until `choose` returns None.

        `choose` takes the step, whether an episode has ended, the seconds, the newest
        observations and their row.
        """
        try:
            return self._tape(made, choose, see)
        finally:
            made.close()

    def _tape(self, made: Any, choose: Any, see: Any) -> Tape:
        count, envs = made.num_envs, made.unwrapped
        observation, _ = envs.reset(seed=made.seed_argument(self._seeds))
        see(observation)
        never = np.zeros(count, bool)
        digests = functools.partial(_digests, made.spec.observation, count)
        rows = [Row(digests(observation), np.zeros(count), never, never)]
        actions: list[types.Nest] = []
        secs, has_ended, changes = 0.0, False, False
        while True:
            action = choose(len(actions), has_ended, secs, observation, rows[-1])
            if action is None:
                mean = secs / max(1, len(actions))
                return Tape(rows, actions, mean, changes, tuple(made.numbers.names))
            given = nest.map_structure(np.array, action)
            start = time.perf_counter()
            observation, reward, *ends, info = envs.step(given)
            secs += time.perf_counter() - start
            see(observation)
            changes = changes or not _are_equal(given, action)
            reward = np.array(bad_data.numbers(reward, count))
            terminated, truncated = (
                np.array(bad_data.ends(name, each, count))
                for name, each in zip(("terminated", "truncated"), ends, strict=True)
            )
            rows.append(Row(digests(observation), reward, terminated, truncated))
            if rows[-1].ended.any():
                made.numbers.take(info, rows[-1].ended)
            actions.append(action)
            has_ended = has_ended or bool(rows[-2].ended.any())  # one step later


def difference(one: Tape, other: Tape) -> str:
    """Returns where two plays first differ, in words; or ""."""
    for t, rows in enumerate(zip(one.rows, other.rows, strict=True)):
        for field, *values in zip(Row._fields, *rows, strict=True):
            for i, (x, y) in enumerate(zip(*values, strict=True)):
                if not _same(x, y):
                    when = f"at step {t}" if t else "after the reset"
                    return f"in the {field} of copy {i} {when}"
    return ""


def _same(x: Any, y: Any) -> bool:
    """Compares two values; NaN equals itself."""
    return bool(x == y) or bool(x != x and y != y)


def _singles(envs: Any) -> list[gymnasium.Env]:
    """Returns the single copies in Gymnasium's SyncVectorEnv; else an empty list."""
    is_sync = isinstance(envs, gymnasium.vector.SyncVectorEnv)
    return list(envs.envs) if is_sync else []


def _check_results(env: Any, seed: int, is_masked: bool) -> None:
    env.action_space.seed(0)
    result = env.reset(seed=seed)
    _check_result("reset", ("observation", "info"), result)
    if is_masked:
        return  # the bare environment may not know the mask of its wrapper
    names = ("observation", "reward", "terminated", "truncated", "info")
    _check_result("step", names, env.step(env.action_space.sample()))


def _check_result(name: str, values: tuple[str, ...], result: Any) -> None:
    if not (isinstance(result, tuple) and len(result) == len(values)):
        is_tuple = isinstance(result, tuple)
        got = f"{len(result)} values" if is_tuple else f"a {type(result).__name__}"
        raise observation_watch.Broken(
            f"{name}() returns {got}. Gymnasium's interface requires {len(values)}"
            f" values: {', '.join(values)}. Change the environment, or wrap it."
        )


def _are_equal(one: types.Nest, other: types.Nest) -> bool:
    pairs = zip(nest.flatten(one), nest.flatten(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _digests(spec: types.Nest, count: int, observation: types.Nest) -> list[bytes]:
    """Returns one digest per copy, without the ignored parts."""
    leaves = bad_data.leaves(spec, observation)
    return [
        hashlib.blake2b(
            b"".join(np.ascontiguousarray(leaf[i]).tobytes() for leaf in leaves),
            digest_size=8,
        ).digest()
        for i in range(count)
    ]
