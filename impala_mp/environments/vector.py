"""Adapter of Gymnasium vector environments in NEXT_STEP mode, to time steps."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from impala_mp import errors, specs, types
from impala_mp.environments import (
    bad_data,
    closing,
    copies,
    episode_numbers,
    snapshot,
    spaces,
)


class VectorEnvironment:
    """E copies of one environment. The next call may overwrite returned arrays.

    `specs` are those of each policy that plays here: one, but for games of several.
    """

    frames_per_step = 1

    def __init__(
        self,
        envs: gymnasium.vector.VectorEnv[Any, Any, Any],
        ignored: Sequence[str] = (),
        privileged: str = "",
    ) -> None:
        """Takes the vector environment, and paths of its observations.

        Args:
          ignored: paths to leave out.
          privileged: path of what only values see; "": nothing.

        Raises:
          BadInput: its autoreset mode is not NEXT_STEP, or a space is not supported, or
            there is no privileged array beside others.
        """
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise errors.BadInput(
                f"{envs} has autoreset mode {mode}. LAST and FIRST must be separate"
                " rows. Set its metadata 'autoreset_mode' to"
                " gymnasium.vector.AutoresetMode.NEXT_STEP."
            )
        self._interface = spaces.Interface(
            envs.single_observation_space, envs.single_action_space, ignored
        )
        self._envs = copies.adopt(envs, self._interface.observation)
        self.num_envs = envs.num_envs
        self.numbers = episode_numbers.EpisodeNumbers()
        one = self._interface
        if privileged:
            spaces.check_privileged(privileged, one.observation)
        self.specs: tuple[specs.EnvironmentSpec, ...] = (
            specs.EnvironmentSpec(
                one.observation,
                one.action,
                self.frames_per_step,
                privileged=privileged,
            ),
        )
        self._clear()

    @property
    def spec(self) -> specs.EnvironmentSpec:
        """The spec of the only policy that plays here."""
        (spec,) = self.specs
        return spec

    @property
    def unwrapped(self) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """The vector environment of Gymnasium."""
        return self._envs

    @property
    def observation_spaces(self) -> list[gymnasium.Space[Any]]:
        """The spaces of single observations, before some parts are ignored."""
        return [self._envs.single_observation_space]

    @property
    def num_outside(self) -> int:
        """Number of observations so far that were outside their space and used."""
        return self._interface.num_outside

    def _clear(self) -> None:
        self._was_last = np.zeros(self.num_envs, bool)
        self._was_over = np.zeros(self.num_envs, bool)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int32)

    def reset(self, seeds: Sequence[int]) -> types.TimeStep:
        """Restarts every copy; returns rows [E, ...], all FIRST.

        Raises:
          BadData: an observation does not fit the space.
        """
        self._clear()
        observation, info = self._envs.reset(seed=self.seed_argument(seeds))
        observation = self._interface.observe(observation, self.num_envs)
        self._note(info)
        return types.TimeStep(
            step_type=np.full(self.num_envs, types.StepType.FIRST, np.uint8),
            reward=np.zeros(self.num_envs, np.float32),
            discount=np.ones(self.num_envs, np.float32),
            observation=self._observation(observation),
        )

    def step(self, action: types.Nest) -> tuple[types.TimeStep, types.EpisodeEnd]:
        """Steps every copy with the agent's `action`, a nest of [E, ...].

        A copy whose previous row was LAST ignores its action and returns FIRST.

        Raises:
          BadData: an observation or a reward cannot be learned from.
        """
        observation, reward, terminated, truncated, info = self._envs.step(
            self._interface.act(action)
        )
        observation = self._interface.observe(observation, self.num_envs)
        reward = bad_data.rewards(reward, self.num_envs)
        terminated = bad_data.ends("terminated", terminated, self.num_envs)
        truncated = bad_data.ends("truncated", truncated, self.num_envs)
        game_over = terminated | truncated
        terminated = self._terminated(terminated, info)
        last = terminated | truncated
        step_type = np.full(self.num_envs, types.StepType.MID, np.uint8)
        step_type[self._was_last] = types.StepType.FIRST
        step_type[last] = types.StepType.LAST
        episode_end = self._episode_end(reward, game_over, info)
        time_step = types.TimeStep(
            step_type=step_type,
            reward=np.where(self._was_last, 0.0, reward).astype(np.float32),
            discount=(~terminated).astype(np.float32),
            observation=self._observation(observation),
        )
        self._was_last, self._was_over = last, game_over
        return time_step, episode_end

    def _episode_end(
        self, reward: np.ndarray, game_over: np.ndarray, info: dict[str, Any]
    ) -> types.EpisodeEnd:
        self._returns += np.where(self._was_over, 0.0, reward)
        self._lengths += ~self._was_over
        return self._take_ended(game_over, info)

    def _take_ended(
        self, game_over: np.ndarray, info: dict[str, Any]
    ) -> types.EpisodeEnd:
        """Returns the statistics of games that are over, and begins new ones."""
        any_over = game_over.any()
        if any_over and not bad_data.are_finite(self._returns[game_over]).all():
            raise bad_data.infinite_return(self._returns[game_over].max())
        returns = np.where(game_over, self._returns, np.nan).astype(np.float32)
        lengths = np.where(game_over, self._lengths, 0).astype(np.int32)
        self._returns[game_over] = 0.0
        self._lengths[game_over] = 0
        numbers = self.numbers.take(info, game_over) if any_over else None
        return types.EpisodeEnd(returns, lengths, numbers)

    # Policies that play here. With one, its rows are those of the environment.

    @property
    def players(self) -> tuple[str, ...]:
        """All players of a game, each in a column."""
        return self.spec.players

    @property
    def policies(self) -> tuple[str, ...]:
        """Their names; "" for a single one."""
        return ("",)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names under which the returns of each player count: players or policies."""
        return self.players

    @property
    def num_columns(self) -> list[int]:
        """Columns of each policy."""
        return [self.num_envs]

    @property
    def places(self) -> list[tuple[int, int]]:
        """The policy of each player of game 0, and its column among the policy's."""
        return [(0, player) for player in range(len(self.players))]

    def num_episodes(self, episodes: int) -> int:
        """Returns the episodes of an evaluation of `episodes`: those of whole games."""
        count = len(self.players)
        return -(-episodes // count) * count

    def split(self, time_step: types.TimeStep) -> list[types.TimeStep]:
        """Returns the time steps of each policy's columns."""
        return [time_step]

    def split_end(self, end: types.EpisodeEnd) -> list[types.EpisodeEnd]:
        """Returns the ends of episodes in each policy's columns."""
        return [end]

    # Parts that subclasses replace.

    def seed_argument(self, seeds: Sequence[int]) -> Any:
        """Converts seeds to the form that the vector environment takes."""
        if isinstance(self._envs.unwrapped, gymnasium.vector.SyncVectorEnv):
            return list(seeds)
        return int(seeds[0])  # one generator for all copies

    def _observation(self, observation: Any) -> Any:
        return observation

    def _note(self, info: dict[str, Any]) -> None:
        """Notes the info of a reset."""

    def _terminated(self, terminated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Returns where the episode terminates for the learner, bool [E]."""
        return terminated

    # Pictures and snapshots.

    @property
    def draws(self) -> bool:
        """True if `frame` has pictures with render_mode rgb_array."""
        return "rgb_array" in (self._envs.metadata.get("render_modes") or ())

    def frame(self) -> np.ndarray:
        """Draws copy 0: uint8 [H, W, 3].

        Raises:
          BadInput: the environment draws no pictures.
        """
        try:
            drawn = self._envs.render()
        except NotImplementedError:  # Gymnasium's default `render`
            drawn = None
        except Exception as error:  # of a user's code, or of a missing package
            raise cannot_draw(self._envs, error) from error
        if drawn is None or not len(drawn) or drawn[0] is None:
            raise errors.BadInput(
                f"{self._envs} renders no pictures. It needs the render mode rgb_array."
                " Declare it, and let the factory take render_mode and pass it on."
            )
        return picture(np.asarray(drawn[0]))

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that the next step depends on: numbers, strings, tensors.

        Raises:
          BadInput: the environment keeps state that Python cannot read.
        """
        return snapshot.take(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of an environment of the same kind, after a reset."""
        snapshot.restore(self, state)

    def close(self) -> None:
        """Closes every copy, once. Errors and hangs harm nothing."""
        closing.close(self._envs)


def cannot_draw(environment: Any, error: Exception) -> errors.BadInput:
    """Returns the error of an environment that failed to draw, with what helps."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, (errors.BadInput, gymnasium.error.DependencyNotInstalled)):
        text = str(error)
        if "pygame" in text:
            text = "Run pip install 'impala_mp[classic-control]' for pygame."
    elif "OpenGL" in text:
        text += ". MuJoCo draws without a display with MUJOCO_GL=egl or osmesa."
    return errors.BadInput(f"{environment} renders no pictures. {text}")


def picture(drawn: np.ndarray) -> np.ndarray:
    """Converts grey, RGB or RGBA, from 0 to 255 or from 0 to 1, to uint8 [H, W, 3].

    A picture of floats without a value above 1 goes from 0 to 1.

    Raises:
      BadInput: it is no picture.
    """
    grey = drawn[..., None] if drawn.ndim == 2 else drawn
    if (
        grey.ndim != 3
        or grey.shape[-1] not in (1, 3, 4)
        or drawn.dtype.kind not in "buif"
    ):
        raise errors.BadInput(
            f"render() returns {drawn.dtype} {list(drawn.shape)}. It must return a"
            " picture. Return uint8 [height, width, 3]."
        )
    if drawn.dtype.kind == "f":
        grey = np.nan_to_num(grey)
    if drawn.dtype.kind in "bf" and drawn.max() <= 1.0:  # MinAtar's
        grey = 255.0 * grey
    rgb = np.repeat(grey, 3, -1) if grey.shape[-1] == 1 else grey[..., :3]
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
