"""Single copies of an environment, stepped one after another.

Gymnasium's SyncVectorEnv stacks the data of all copies after the last one has stepped.
It casts values without a look at them, and fails if infos change their types.
"""

import numbers
from typing import Any

import gymnasium
import numpy as np

from impala_mp import nest, types
from impala_mp.environments import bad_data, episode_numbers

_Sync = gymnasium.vector.SyncVectorEnv


class Copies(_Sync):
    """SyncVectorEnv in NEXT_STEP mode that checks the data of each copy.

    An observation is copied before the next copy steps. The next call overwrites
    returned observations. The infos are those of copies whose episode ends, by copy,
    under `episode_numbers.FINAL`.
    """

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, Any]:
        """Resets all copies; `seed` has one seed per copy, or is None.

        Raises:
          BadData: an observation does not fit the space.
        """
        self._autoreset_envs = np.zeros(self.num_envs, bool)
        seeds = [None] * self.num_envs if seed is None else seed
        for i, (env, own) in enumerate(zip(self.envs, seeds, strict=True)):
            observation, _ = env.reset(seed=own, options=options)
            self._put(i, observation)
        return self._newest(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Steps all copies; one that ended is reset and ignores its action.

        Raises:
          BadData: an observation does not fit the space, a reward is no number, or an
            end is no bool.
        """
        count = self.num_envs
        single = gymnasium.vector.utils.iterate(self.action_space, actions)
        over = self._autoreset_envs.tolist()
        reward: list[Any] = [0.0] * count
        infos: list[Any] = [None] * count
        terminated: list[Any] = [False] * count
        truncated: list[Any] = [False] * count
        for i, (env, action) in enumerate(zip(self.envs, single, strict=True)):
            if over[i]:
                observation, _ = env.reset()
            else:
                observation, reward[i], terminated[i], truncated[i], infos[i] = (
                    env.step(action)
                )
            self._put(i, observation)
        ends = [
            bad_data.ends(name, _one_each(name, values), count)
            for name, values in (("terminated", terminated), ("truncated", truncated))
        ]
        self._autoreset_envs = ended = ends[0] | ends[1]
        info = {}
        if ended.any():
            final = {i: infos[i] for i in np.flatnonzero(ended).tolist()}
            info = {episode_numbers.FINAL: final}
        return self._newest(), _one_each("reward", reward), *ends, info

    # Set by `adopt`. Methods are no state of the environment.
    _newest: Any
    _put: Any


def adopt(
    envs: gymnasium.vector.VectorEnv[Any, Any, Any], spec: types.Nest
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Makes a SyncVectorEnv one of `Copies`, in place; leaves any other as it is.

    A wrapped one keeps its class: wrappers may change the layout of observations, keep
    them after the next step, or read the infos of every step.

    Args:
      spec: the layout of the observations that are read.
    """
    own = type(envs)
    if isinstance(envs, _Sync) and (own.step, own.reset) == (_Sync.step, _Sync.reset):
        envs.__class__ = Copies
    if isinstance(envs, Copies):
        count = envs.num_envs
        rows = Rows(
            spec,
            nest.map_structure(
                lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), spec
            ),
        )
        envs._newest, envs._put = rows.newest, rows.put
    return envs


class Rows:
    """Newest observations [E, ...] of all copies, without those that are ignored."""

    def __init__(self, spec: types.Nest, arrays: types.Nest) -> None:
        """`arrays` [E, ...] are written in place."""
        self._spec = spec
        self._observations = arrays
        self._rows = [
            (f"observations {path!r}" if path else "observations", rows)
            for path, rows in nest.flatten_with_path(self._observations)
        ]

    def newest(self) -> types.Nest:
        return self._observations

    def put(self, i: int, observation: Any) -> None:
        """Copies the observation of copy `i` into its row.

        Raises:
          BadData: it does not fit the space.
        """
        leaves = bad_data.leaves(self._spec, observation)
        for (name, rows), leaf in zip(self._rows, leaves, strict=True):
            _put_leaf(i, name, rows, leaf)


def _put_leaf(i: int, name: str, rows: np.ndarray, leaf: Any) -> None:
    if type(leaf) is not np.ndarray or leaf.dtype != rows.dtype:
        leaf = bad_data.cast(f"{name} of copy {i}", leaf, rows.dtype)
    if leaf.shape != rows.shape[1:]:
        raise bad_data.BadData(
            "bad_observations",
            f"{name} of copy {i} have shape {list(leaf.shape)}, which does not fit the"
            f" space of shape {list(rows.shape[1:])}. Correct the observations or the"
            " space",
        )
    rows[i] = leaf


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
