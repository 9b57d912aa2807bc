"""Any Gymnasium vector environment in NEXT_STEP mode, as time steps."""

import traceback
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from impala_mp import errors, specs, types
from impala_mp.environments import snapshot


class BadData(Exception):
    """What an environment gave cannot be learned from; `counter` counts such things."""

    def __init__(self, counter: str, sentence: str) -> None:
        super().__init__(sentence)
        self.counter = counter


# Where Gymnasium puts together what its copies gave: nobody else's code runs there.
_STACKING = {
    function.__code__
    for function in gymnasium.vector.utils.concatenate.registry.values()
}
_STEP = gymnasium.vector.SyncVectorEnv.step.__code__


def _raise_as_bad_data(error: Exception) -> None:
    """Raises BadData if a copy gave what has no place in a batch.

    A bug of the environment itself is none: it ends the actor, with its traceback.
    """
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not _STACKING.isdisjoint(codes):
        raise BadData(
            "bad_observations",
            f"an observation is not what the space says: {error}",
        ) from error
    # Too few values to unpack: that is another interface, not a reward.
    if codes[-1] is _STEP and "unpack" not in str(error):
        raise BadData(
            "bad_rewards", f"a reward, or an end, is no number: {error}"
        ) from error


def _are_rewards(reward: Any, num_envs: int) -> bool:
    array = np.asarray(reward)
    if array.shape != (num_envs,) or array.dtype.kind not in "fiub":
        return False
    return bool(np.isfinite(array).all())


class VectorEnvironment:
    """E copies of one environment. What it returns may be reused by the next call."""

    frames_per_step = 1

    def __init__(self, envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise errors.BadInput(
                f"{envs} has autoreset mode {mode}: give it"
                " gymnasium.vector.AutoresetMode.NEXT_STEP (metadata"
                " 'autoreset_mode'), in which LAST and FIRST are rows of their own."
            )
        self._envs = envs
        self.num_envs = envs.num_envs
        layout = specs.observation_spec(envs.single_observation_space)
        self._shape, self._dtype = layout.shape, layout.dtype.name
        self.spec = specs.EnvironmentSpec(
            layout,
            specs.action_spec(envs.single_action_space),
            self.frames_per_step,
        )
        self._start = int(getattr(envs.single_action_space, "start", 0))
        self._clear()

    @property
    def unwrapped(self) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """What Gymnasium gave."""
        return self._envs

    def _clear(self) -> None:
        self._was_last = np.zeros(self.num_envs, bool)
        self._was_over = np.zeros(self.num_envs, bool)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int32)

    def reset(self, seeds: Sequence[int]) -> types.TimeStep:
        """Starts every copy anew: rows [E, ...], all FIRST."""
        self._clear()
        try:
            observation, info = self._envs.reset(seed=self.seed_argument(seeds))
        except Exception as error:
            _raise_as_bad_data(error)
            raise
        self._check(observation)
        self._note(info)
        return types.TimeStep(
            step_type=np.full(self.num_envs, types.StepType.FIRST, np.uint8),
            reward=np.zeros(self.num_envs, np.float32),
            discount=np.ones(self.num_envs, np.float32),
            observation=self._observation(observation),
        )

    def step(self, action: np.ndarray) -> tuple[types.TimeStep, types.EpisodeEnd]:
        """One step of every copy; `action` is int64 [E].

        A copy whose row before was LAST ignores its action and gives FIRST.
        """
        try:
            observation, reward, terminated, truncated, info = self._envs.step(
                action + self._start if self._start else action
            )
        except Exception as error:
            _raise_as_bad_data(error)
            raise
        self._check(observation)
        if not _are_rewards(reward, self.num_envs):
            text = f"rewards are not finite, or not one a copy: {reward!r}"
            raise BadData("bad_rewards", text)
        game_over = terminated | truncated
        terminated = self._terminated(terminated, info)
        last = terminated | truncated
        step_type = np.full(self.num_envs, types.StepType.MID, np.uint8)
        step_type[self._was_last] = types.StepType.FIRST
        step_type[last] = types.StepType.LAST
        episode_end = self._episode_end(reward, game_over)
        time_step = types.TimeStep(
            step_type=step_type,
            reward=np.where(self._was_last, 0.0, reward).astype(np.float32),
            discount=(~terminated).astype(np.float32),
            observation=self._observation(observation),
        )
        self._was_last, self._was_over = last, game_over
        return time_step, episode_end

    def _check(self, observation: Any) -> None:
        """Raises BadData unless the observations are what the space says."""
        shape, dtype = observation.shape[1:], observation.dtype
        if shape != self._shape or dtype != self._dtype:
            raise BadData(
                "bad_observations",
                f"observations are {dtype} {list(shape)}, and the space says"
                f" {self._dtype} {list(self._shape)}",
            )
        if dtype.kind == "f" and not np.isfinite(observation).all():
            raise BadData("bad_observations", "an observation is not finite")

    def _episode_end(
        self, reward: np.ndarray, game_over: np.ndarray
    ) -> types.EpisodeEnd:
        self._returns += np.where(self._was_over, 0.0, reward)
        self._lengths += ~self._was_over
        returns = np.where(game_over, self._returns, np.nan).astype(np.float32)
        lengths = np.where(game_over, self._lengths, 0).astype(np.int32)
        self._returns[game_over] = 0.0
        self._lengths[game_over] = 0
        return types.EpisodeEnd(returns, lengths)

    # What a particular vector environment does in its own way.

    def seed_argument(self, seeds: Sequence[int]) -> Any:
        """In the form that the vector environment takes."""
        if isinstance(self._envs.unwrapped, gymnasium.vector.SyncVectorEnv):
            return list(seeds)
        return int(seeds[0])  # one generator for all copies

    def _observation(self, observation: Any) -> Any:
        return observation

    def _note(self, info: dict[str, Any]) -> None:
        """Sees the info of a reset."""

    def _terminated(self, terminated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Where the episode terminates for the learner."""
        return terminated

    # Pictures and snapshots.

    def frame(self) -> np.ndarray:
        """A picture of copy 0: uint8 [H, W, 3].

        Raises:
          BadInput: the environment draws none.
        """
        try:
            drawn = self._envs.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise errors.BadInput(
                f"{self._envs} renders no pictures: {error}"
            ) from error
        if not drawn:
            raise errors.BadInput(
                f"{self._envs} renders no pictures: it has no render mode rgb_array."
            )
        return np.asarray(drawn[0], np.uint8)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; numbers, strings and tensors.

        Raises:
          BadInput: the environment keeps state that cannot be read from Python.
        """
        return snapshot.take(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what an environment of the same kind gave, after a reset."""
        snapshot.restore(self, state)

    def close(self) -> None:
        self._envs.close()
