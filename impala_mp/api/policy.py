"""Policy of a run as a function of single observations or batches of them."""

from typing import Any

import numpy as np
import torch

from impala_mp import errors, nest, types
from impala_mp.environments import bad_data, spaces
from impala_mp.networks import agent as agent_lib

State = tuple[torch.Tensor, ...]


class Policy:
    """Function from observations to actions of the environment.

        action, state = policy(observation)                 # an episode starts
        action, state = policy(observation, state)          # it continues

    An observation has the shape of the observation space. With one more axis in front
    it is a batch, and so is the action. Actions have the dtype of the action space.
    """

    def __init__(
        self,
        agent: agent_lib.Agent,
        interface: spaces.Interface,
        generator: torch.Generator,
    ) -> None:
        """`generator` draws sampled actions."""
        self._agent, self._interface = agent, interface
        self._generator = generator

    def __call__(
        self,
        observation: types.Nest,
        state: State | None = None,
        *,
        reward: Any = None,
        first: Any = None,
        greedy: bool = True,
    ) -> tuple[types.Nest, State]:
        """Returns the action, and the state for the next call.

        Args:
          observation: one, or a batch.
          state: of the call before; None where episodes start. It holds the recurrent
            state and the last action, as far as the network uses them.
          reward: that the last action has earned; only a network with
            config.network.last_reward needs it.
          first: in a batch, bool a row: True where an episode has just started.
          greedy: True takes the most likely action, False draws one.

        Raises:
          BadInput: an argument does not fit the environment or the run.
        """
        rows, is_single = self._rows(observation)
        count = len(nest.flatten(rows)[0])
        starts = np.full(count, state is None)
        if state is None:
            state = self._agent.initial_state(count)
        elif first is not None:
            starts = _per_row("first", first, count, np.dtype(bool))
        self._check_state(state, count)
        time_step = types.TimeStep(
            step_type=np.where(starts, types.StepType.FIRST, types.StepType.MID).astype(
                np.uint8
            ),
            reward=np.where(starts, 0.0, self._rewards(reward, starts)).astype(
                np.float32
            ),
            discount=np.ones(count, np.float32),
            observation=rows,
        )
        with torch.inference_mode():
            chosen, state = self._agent.decide(
                nest.tensors(time_step),
                state,
                greedy=greedy,
                generator=self._generator,
            )
        action = nest.map_structure(torch.Tensor.numpy, chosen)
        moved = self._interface.act(action)
        return (nest.map_structure(_only, moved) if is_single else moved), state

    def _rows(self, observation: types.Nest) -> tuple[types.Nest, bool]:
        """Returns arrays [B, ...] and whether the observation was a single one."""
        try:
            rows, is_single = _batch(self._interface.observation, observation)
            count = len(nest.flatten(rows)[0])
            return self._interface.observe(rows, count), is_single
        except bad_data.BadData as error:
            raise errors.BadInput(
                f"this observation cannot be used: {error}. Give one that the"
                " environment returns, or a batch of them."
            ) from error

    def _rewards(self, reward: Any, starts: np.ndarray) -> np.ndarray:
        count = len(starts)
        if reward is not None:
            return _per_row("reward", reward, count, np.dtype(np.float32))
        if self._agent.network.last_reward and not starts.all():
            raise errors.BadInput(
                "reward is not given, and the network of this run takes the last"
                " reward (config.network.last_reward). Call policy(observation, state,"
                " reward=reward)."
            )
        return np.zeros(count, np.float32)

    def _check_state(self, state: Any, count: int) -> None:
        expected = [(count, *each.shape) for each in self._agent.core_state_spec()]
        found = [tuple(getattr(each, "shape", ())) for each in state]
        if found != expected:
            raise errors.BadInput(
                f"state has arrays of {found}, and this call needs {expected}. Give the"
                " state that the call before returned, for as many observations."
            )


def _batch(spec: types.Nest, observation: types.Nest) -> tuple[types.Nest, bool]:
    """Casts an observation to the dtypes of `spec`; gives a single one a batch axis.

    Raises:
      BadData: it does not fit, or its parts disagree on the batch.
    """
    singles: set[bool] = set()

    def convert(path: str, leaf_spec: Any, leaf: Any) -> np.ndarray:
        name = f"observation {path!r}" if path else "observation"
        if isinstance(leaf, torch.Tensor):
            leaf = leaf.detach().cpu().numpy()
        array = bad_data.cast(name, leaf, leaf_spec.dtype)
        is_single = array.shape == leaf_spec.shape
        if not is_single and array.shape[1:] != leaf_spec.shape:
            raise bad_data.BadData(
                "bad_observations",
                f"{name} has shape {list(array.shape)}, but the space has"
                f" {list(leaf_spec.shape)}",
            )
        singles.add(is_single)
        return array[None] if is_single else array

    rows = _convert(spec, observation, "", convert)
    if len(singles) > 1:
        raise bad_data.BadData(
            "bad_observations", "some of its parts are batches and some are not"
        )
    if len({len(leaf) for leaf in nest.flatten(rows)}) > 1:
        raise bad_data.BadData(
            "bad_observations", "its parts are batches of different sizes"
        )
    return rows, singles.pop()


def _convert(spec: Any, observation: Any, path: str, convert: Any) -> types.Nest:
    """Maps the parts of an observation that `spec` has."""
    try:
        if isinstance(spec, dict):
            return {
                k: _convert(v, observation[k], f"{path}/{k}".lstrip("/"), convert)
                for k, v in spec.items()
            }
        if isinstance(spec, tuple) and not hasattr(spec, "_fields"):
            parts = zip(spec, observation, strict=True)
            return tuple(
                _convert(*each, f"{path}/{i}".lstrip("/"), convert)
                for i, each in enumerate(parts)
            )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise bad_data.misbuilt(error) from error
    return convert(path, spec, observation)


def _per_row(name: str, values: Any, count: int, dtype: np.dtype) -> np.ndarray:
    """Returns an array [B] of one value a row; a scalar stands for a single row."""
    array = np.atleast_1d(np.asarray(values))
    if array.shape != (count,) or array.dtype.kind not in "biuf":
        raise errors.BadInput(
            f"{name} is {values!r:.80}. It must be one number for each of {count}"
            f" observations. Give {name} as the environment returns it."
        )
    return array.astype(dtype)


def _only(rows: np.ndarray) -> Any:
    """Returns the one row of an array [1, ...]; a number if the row is one."""
    return rows[0]
