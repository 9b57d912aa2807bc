"""One tree of random seeds: run, role, index, incarnation, environment."""

import numpy as np

# The order is part of the format: append, never reorder.
_ROLES = ("learner", "actor", "evaluator", "inference", "replay")


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


class EnvironmentSeeds:
    """Seeds of a process's environments; each call returns those of the next start."""

    def __init__(self, node: np.random.SeedSequence, num_envs: int) -> None:
        self._node, self._num_envs = node, num_envs
        self._starts = 0

    def __call__(self) -> list[int]:
        self._starts += 1
        return environment_seeds(self._node, self._num_envs, self._starts - 1)


def environment_seeds(
    node: np.random.SeedSequence, num_envs: int, start: int = 0
) -> list[int]:
    """Returns a seed for each environment: 31 bits, which ALE accepts."""
    parent = np.random.SeedSequence(
        node.entropy, spawn_key=(*node.spawn_key, 1 + start)
    )
    children = parent.spawn(num_envs)
    return [int(child.generate_state(1)[0]) & 0x7FFFFFFF for child in children]
