"""One tree of random seeds: run, role, index, incarnation, environment."""

import random
from typing import Any

import numpy as np
import torch

# The order is part of the format: append, never reorder.
_ROLES = (
    *("learner", "actor", "evaluator", "inference", "replay", "main"),
    "receiver",
)
_GLOBALS = 2**32 - 1  # child of a node; below are those of torch and of environments
_WORDS = 8  # of 32 bits, for each generator


def sequence(
    seed: int, role: str, index: int = 0, incarnation: int = 0, run: int = 0
) -> np.random.SeedSequence:
    """Returns the node of one incarnation of one process.

    Its children are independent. Each `run` in a folder has a separate tree: its
    number stands above the 96 bits of a seed. A longer key would make it a child of
    the previous run instead.
    """
    key = (_ROLES.index(role), index, incarnation)
    return np.random.SeedSequence(seed + (run << 96), spawn_key=key)


def torch_seed(node: np.random.SeedSequence) -> int:
    """Returns a 63-bit seed for a torch.Generator."""
    child = np.random.SeedSequence(node.entropy, spawn_key=(*node.spawn_key, 0))
    return int(child.generate_state(1, np.uint64)[0] >> 1)


def seed_globals(node: np.random.SeedSequence, with_torch: bool = True) -> None:
    """Seeds the global generators of `random`, NumPy and torch.

    Environments and networks may draw from them. A child of the fork server inherits
    its states, so each process must seed them.
    """
    child = np.random.SeedSequence(node.entropy, spawn_key=(*node.spawn_key, _GLOBALS))
    of_random, of_numpy, of_torch = child.generate_state(3 * _WORDS).reshape(3, _WORDS)
    random.seed(of_random.tobytes())
    np.random.seed(of_numpy)
    if with_torch:
        torch.manual_seed(int(of_torch[:2].view(np.uint64)[0] >> 1))


def global_state() -> dict[str, Any]:
    """Returns the states of the global generators, for `set_global_state`."""
    name, words, *rest = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (name, np.asarray(words).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }


def set_global_state(state: dict[str, Any]) -> None:
    random.setstate(state["random"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])


class EnvironmentSeeds:
    """Seeds of a process's environments; each call returns those of the next start."""

    def __init__(self, node: np.random.SeedSequence, num_envs: int) -> None:
        self._node, self._num_envs = node, num_envs
        self._starts = 0

    def __call__(self) -> list[int]:
        self._starts += 1
        return environment_seeds(self._node, self._num_envs, self._starts - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"key": list(self._node.spawn_key), "starts": self._starts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues after the starts of a state, which another process may have had."""
        entropy, key = self._node.entropy, state["key"]
        self._node = np.random.SeedSequence(entropy, spawn_key=key)
        self._starts = state["starts"]


def environment_seeds(
    node: np.random.SeedSequence, num_envs: int, start: int = 0
) -> list[int]:
    """Returns a seed for each environment: 31 bits, which ALE accepts."""
    parent = np.random.SeedSequence(
        node.entropy, spawn_key=(*node.spawn_key, 1 + start)
    )
    children = parent.spawn(num_envs)
    return [int(child.generate_state(1)[0]) & 0x7FFFFFFF for child in children]
