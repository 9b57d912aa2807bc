"""Between a vector environment's spaces and what flows: checks in, actions out."""

import traceback
from typing import Any

import gymnasium
import numpy as np


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


def raise_as_bad_data(error: Exception) -> None:
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


def are_rewards(reward: Any, num_envs: int) -> bool:
    array = np.asarray(reward)
    if array.shape != (num_envs,) or array.dtype.kind not in "fiub":
        return False
    return bool(np.isfinite(array).all())
