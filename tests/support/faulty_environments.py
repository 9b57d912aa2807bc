"""Environments with one fault at most."""

import gymnasium
import numpy as np

from impala_mp.environments import catch
from tests.support import builders


class Faulty(gymnasium.Env):
    """Episodes of 5 steps, and one fault at most."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2, start=3)

    def __init__(self, fault=""):
        self._fault = fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        if self._fault == "reset raises":
            raise ValueError("no level to start")
        if self._fault == "old reset":
            return self._observation()
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self._time += 1
        if self._fault == "step raises" and self._time == 3:
            raise ValueError("no level to go on with")
        if self._fault == "numpy raises":
            np.stack([])
        if self._fault == "late":
            return self._observation(), 1.0, self._time == 400, False, {}
        over = self._time == 5 and self._fault != "endless"
        reward = float(self.np_random.normal())
        if self._fault == "reward" and self._time == 4:
            reward = float("nan")
        if self._fault == "old step":
            return self._observation(), reward, over, {}
        return self._observation(), reward, over, False, {}

    def _observation(self):
        if self._fault == "unseeded":
            own = np.random.default_rng()
            return own.uniform(-1.0, 1.0, 2).astype(np.float32)
        observation = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        if self._fault == "shape" and self._time == 2:
            return observation[:1]
        if self._fault == "float64":
            return observation.astype(np.float64)
        if self._fault == "complex":
            return observation.astype(np.complex64)
        if self._fault == "outside":
            return observation * 3.0
        if self._fault == "not finite" and self._time == 2:
            observation[0] = np.inf
        return observation


class FaultyVector(catch.CatchVectorEnv):
    """A vector environment of its own, with one fault at most."""

    def __init__(self, num_envs, render_mode=None, fault=""):
        super().__init__(num_envs, render_mode=render_mode)
        self._fault, self._over = fault, np.zeros(num_envs, bool)

    def step(self, actions):
        over = self._over
        result = list(super().step(actions))
        self._over = result[2] | result[3]
        if self._fault == "reward after the end":
            result[1] = np.where(over, 1.0, result[1])
        if self._fault == "end after the end":
            result[2] = result[2] | over
        if self._fault == "action after the end":
            result[0] = result[0].copy()
            result[0][over, 0, 0] = actions[over]
        if self._fault == "int ends":
            result[2] = result[2].astype(int)
        if self._fault == "float ends":
            result[3] = result[3].astype(np.float32)
        if self._fault == "reward shape":
            result[1] = result[1][:, None]
        if self._fault == "float64":
            result[0] = result[0].astype(np.float64)
        return tuple(result)


class NoNextStep(catch.CatchVectorEnv):
    """Says of itself that it resets in the step that ends."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}


gymnasium.register("Faulty-v0", Faulty)
gymnasium.register("FaultyVector-v0", vector_entry_point=FaultyVector)
gymnasium.register("NoNextStep-v0", vector_entry_point=NoNextStep)


def config(name="Faulty", fault="", **overrides):
    made = builders.config(**overrides)
    made.environment.id = f"{name}-v0"
    made.environment.kwargs.fault = fault
    return made
