"""Bad data from an environment: its exception, and the checks that raise it."""

import traceback
from typing import Any

import gymnasium
import numpy as np


class BadData(Exception):
    """Environment data that cannot be learned from, counted by the metric `counter`."""

    def __init__(self, counter: str, sentence: str) -> None:
        super().__init__(sentence)
        self.counter = counter


# Gymnasium's code that stacks the data of its copies; no user code runs in it.
_STACKING = {
    function.__code__
    for function in gymnasium.vector.utils.concatenate.registry.values()
}
_STEP = gymnasium.vector.SyncVectorEnv.step.__code__


def raise_as_bad_data(error: Exception) -> None:
    """Raises BadData if the data of a copy does not fit into a batch.

    A bug in the environment's code is not bad data: it ends the actor with its
    traceback.
    """
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not _STACKING.isdisjoint(codes):
        raise BadData(
            "bad_observations",
            f"an observation does not fit the space: {error}",
        ) from error
    # A failed unpacking means another interface, not a bad reward.
    if codes[-1] is _STEP and "unpack" not in str(error):
        raise BadData(
            "bad_rewards", f"a reward or an end is not a number: {error}"
        ) from error


def are_rewards(reward: Any, num_envs: int) -> bool:
    array = np.asarray(reward)
    if array.shape != (num_envs,) or array.dtype.kind not in "fiub":
        return False
    return bool(np.isfinite(array).all())
