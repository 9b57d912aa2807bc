"""Copies of a single environment, stepped one after the other."""

import numbers
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from impala_mp import nest, specs
from impala_mp.environments import bad_data, spaces


class Newest:
    """Newest observations [E, ...] and infos of all copies, replaced at each step."""

    def __init__(
        self, space: gymnasium.Space[Any], num_envs: int, ignored: Sequence[str]
    ) -> None:
        self.infos: list[Any] = [{}] * num_envs  # as the copies return them
        self._spec = spaces.observation_spec(space, ignored)
        self.observations = nest.map_structure(
            lambda leaf: np.zeros((num_envs, *leaf.shape), leaf.dtype), self._spec
        )
        self._rows = [
            (f"observations {path!r}" if path else "observations", rows)
            for path, rows in nest.flatten_with_path(self.observations)
        ]
        self._is_nested = isinstance(self._spec, (dict, tuple))

    def put(self, i: int, observation: Any, info: Any) -> None:
        """Copies the observation of copy `i` into its row, and keeps its info.

        Raises:
          BadData: the observation does not fit the space.
        """
        self.infos[i] = info
        if not self._is_nested:
            self._put_leaf(i, *self._rows[0], observation)
            return
        try:
            leaves = nest.flatten(specs.pick(self._spec, observation))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise spaces.misbuilt(error) from error
        for (name, rows), leaf in zip(self._rows, leaves, strict=True):
            self._put_leaf(i, name, rows, leaf)

    def _put_leaf(self, i: int, name: str, rows: np.ndarray, leaf: Any) -> None:
        if type(leaf) is not np.ndarray or leaf.dtype != rows.dtype:
            leaf = bad_data.cast(f"{name} of copy {i}", leaf, rows.dtype)
        if leaf.shape != rows.shape[1:]:
            raise bad_data.BadData(
                "bad_observations",
                f"{name} of copy {i} have shape {list(leaf.shape)}, which does not fit"
                f" the space of shape {list(rows.shape[1:])}. Correct the observations"
                " or the space",
            )
        rows[i] = leaf


class Copies(gymnasium.vector.SyncVectorEnv):
    """Gymnasium's SyncVectorEnv in NEXT_STEP mode, with checks of each copy's data.

    Gymnasium casts observations, ends and rewards while it stacks them, so that a
    wrong value cannot be seen afterwards. It also stacks infos, which fails if they
    change their types. Here infos are kept as they are, in `newest`.

    An observation is copied before the next copy is stepped. The next call overwrites
    returned observations.
    """

    def __init__(
        self, envs: gymnasium.vector.SyncVectorEnv, ignored: Sequence[str]
    ) -> None:
        """Takes over the copies in `envs`, and paths to leave out of observations.

        Raises:
          BadInput: the observation space is not supported.
        """
        super().__init__(
            [lambda env=env: env for env in envs.envs],  # type: ignore[misc]
            copy=False,
            observation_mode=(envs.observation_space, envs.single_observation_space),
            autoreset_mode=AutoresetMode.NEXT_STEP,
        )
        self.spec = envs.spec
        self.newest = Newest(self.single_observation_space, self.num_envs, ignored)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets all copies; `seed` has one seed per copy.

        Raises:
          BadData: an observation does not fit the space.
        """
        self._autoreset_envs = np.zeros(self.num_envs, bool)
        seeds = [None] * self.num_envs if seed is None else seed
        for i, (env, own) in enumerate(zip(self.envs, seeds, strict=True)):
            observation, info = env.reset(seed=own, options=options)
            self.newest.put(i, observation, info)
        return self.newest.observations, {}

    def step(
        self, actions: Any
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all copies; one that ended is reset and ignores its action.

        Raises:
          BadData: an observation does not fit the space, a reward is no number, or an
            end is no bool.
        """
        each: Any = gymnasium.vector.utils.iterate(self.action_space, actions)
        over = self._autoreset_envs.tolist()
        reward: list[Any] = [0.0] * self.num_envs
        terminated: list[Any] = [False] * self.num_envs
        truncated: list[Any] = [False] * self.num_envs
        for i, (env, action) in enumerate(zip(self.envs, each, strict=True)):
            if over[i]:
                observation, info = env.reset()
            else:
                observation, reward[i], terminated[i], truncated[i], info = env.step(
                    action
                )
            self.newest.put(i, observation, info)
        count = self.num_envs
        ends = [
            bad_data.ends(name, _one_each(name, values), count)
            for name, values in (("terminated", terminated), ("truncated", truncated))
        ]
        self._autoreset_envs = ends[0] | ends[1]
        rewards = _one_each("reward", reward)
        return self.newest.observations, rewards, ends[0], ends[1], {}


def _one_each(name: str, values: list[Any]) -> np.ndarray:
    """Returns the values of all copies as one array [E]; those of shape [1] as well.

    Raises:
      BadData: one of them is an array of several elements.
    """
    try:
        array = np.array(values)
    except ValueError:  # their shapes differ
        array = np.empty(0)
    if array.shape != (len(values),):
        for i, value in enumerate(values):
            if np.size(value) != 1:
                raise bad_data.BadData(
                    "bad_rewards",
                    f"the {name} of copy {i} is {value!r}. It must be a single value."
                    f" Return one {name} per step",
                )
        array = np.array([np.asarray(value).item() for value in values])
    if array.dtype.kind == "O" and all(isinstance(v, numbers.Real) for v in values):
        return array.astype(float)  # fractions, and integers beyond 64 bits
    return array
