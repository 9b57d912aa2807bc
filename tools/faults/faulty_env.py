"""Vector environment with faults on request: chaos.py gives it to the actors.

It wraps the built-in Catch or Recall, or the Gymnasium id `inner`. A file named
`<control>.<pid>` that contains the name of a fault orders it from the process `pid`
only. The file is removed when the fault is committed.
"""

import os
import time
from typing import Any

import gymnasium
import numpy as np

from impala_mp.environments import catch, recall

_BUILT_IN = {"Catch": catch.CatchVectorEnv, "Recall": recall.RecallVectorEnv}
_LEAK_BYTES = 4 * 2**20
_leaked: list[bytes] = []


class FaultyVectorEnv(gymnasium.vector.VectorWrapper):
    """Passes calls to `inner` until an order comes."""

    def __init__(self, num_envs: int, inner: str = "Catch", control: str = "") -> None:
        super().__init__(_make(inner, num_envs))
        self._order = f"{control}.{os.getpid()}"

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        fault = self._take_order()
        if fault == "raises":
            raise RuntimeError("chaos: this environment raises")
        while fault == "hangs":
            time.sleep(3600.0)
        if fault == "leaks":
            _leaked.append(b"\xff" * _LEAK_BYTES)
        observation, reward, *rest = self.env.step(actions)
        if fault == "nan_reward":
            reward = _spoiled(reward)
        if fault == "nan_observation":
            observation = _spoiled(observation)
        return observation, reward, *rest

    def _take_order(self) -> str:
        if not os.path.exists(self._order):
            return ""
        with open(self._order) as file:
            fault = file.read()
        os.unlink(self._order)
        return fault


def _make(inner: str, num_envs: int) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    if inner in _BUILT_IN:
        return _BUILT_IN[inner](num_envs)
    return gymnasium.make_vec(inner, num_envs, vectorization_mode="sync")


def _spoiled(values: np.ndarray) -> np.ndarray:
    """A copy in which every other environment's values are NaN."""
    spoiled = np.array(values, np.result_type(values, np.float32))
    spoiled[::2] = np.nan
    return spoiled


gymnasium.register("Faulty-v0", vector_entry_point=FaultyVectorEnv)
