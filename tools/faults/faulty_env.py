"""Environments with faults on request: chaos.py gives them to the actors.

The vector environment wraps the built-in Catch or Recall, or the Gymnasium id `inner`;
the game wraps one of PettingZoo's in parallel, MODULE:FACTORY, and the boards wrap the
built-in Connect. A file named `<control>.<pid>` that contains the name of a fault
orders it from the process `pid` only. The file is removed when the fault is committed.
"""

import importlib
import os
import time
from typing import Any

import gymnasium
import numpy as np

from impala_mp.environments import catch, connect, recall, vector_games

_BUILT_IN = {"Catch": catch.CatchVectorEnv, "Recall": recall.RecallVectorEnv}
_LEAK_BYTES = 4 * 2**20
_leaked: list[bytes] = []


class FaultyVectorEnv(gymnasium.vector.VectorWrapper):
    """Passes calls to `inner` until an order comes."""

    def __init__(self, num_envs: int, inner: str = "Catch", control: str = "") -> None:
        super().__init__(_make(inner, num_envs))
        self._control = control

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        fault = _commit(self._control)
        observation, reward, *rest = self.env.step(actions)
        if fault == "nan_reward":
            reward = _spoiled(reward)
        if fault == "nan_observation":
            observation = _spoiled(observation)
        return observation, reward, *rest


class FaultyGame:
    """Passes calls to `inner` until an order comes to one of the process's games."""

    def __init__(self, inner: str, control: str = "") -> None:
        module, _, factory = inner.partition(":")
        self._game = getattr(importlib.import_module(module), factory)()
        self._control = control

    def __getattr__(self, name: str) -> Any:
        return getattr(self._game, name)

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        fault = _commit(self._control)
        observations, rewards, *rest = self._game.step(actions)
        if fault == "nan_reward":
            rewards = dict.fromkeys(rewards, np.nan)
        if fault == "nan_observation":
            observations = {name: _spoiled(x) for name, x in observations.items()}
        return observations, rewards, *rest


class FaultyBoards:
    """Passes calls to the boards of Connect until an order comes."""

    def __init__(self, num_envs: int, control: str = "", **arguments: Any) -> None:
        self._boards = connect.Connect(num_envs, **arguments)
        self._control = control

    def __getattr__(self, name: str) -> Any:
        return getattr(self._boards, name)

    def step(self, actions: np.ndarray) -> vector_games.Rows:
        fault = _commit(self._control)
        rows = self._boards.step(actions)
        if fault == "nan_reward":
            rows = rows._replace(reward=_spoiled(rows.reward))
        return rows


def _commit(control: str) -> str:
    """Returns the fault that is ordered from this process; "": none.

    Those of the data are left to the caller.
    """
    fault = _take_order(f"{control}.{os.getpid()}")
    if fault == "raises":
        raise RuntimeError("chaos: this environment raises")
    while fault == "hangs":
        time.sleep(3600.0)
    if fault == "leaks":
        _leaked.append(b"\xff" * _LEAK_BYTES)
    return fault


def _take_order(path: str) -> str:
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        fault = file.read()
    os.unlink(path)
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


gymnasium.register("Chaos-v0", vector_entry_point=FaultyVectorEnv)
