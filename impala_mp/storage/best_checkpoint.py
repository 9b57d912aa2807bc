"""`checkpoints/best`: the policy with the highest mean return in an evaluation."""

import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from impala_mp.storage import checkpoint


class BestCheckpoint:
    """Owner of the best checkpoint of a run: one process at a time."""

    def __init__(self, folder: str) -> None:
        """Reads the best so far in the folder of checkpoints, if it is sound."""
        self._folder = folder
        self.mean = -math.inf  # in the evaluation that chose it
        self.updates = -1
        try:
            state = checkpoint.load(os.path.join(folder, checkpoint.BEST))
            self.mean = float(state["selection"]["mean"])
            self.updates = int(state["learner"]["updates"])
        except (checkpoint.Damaged, KeyError, TypeError, ValueError):
            pass  # none yet, or none that can be used
        unfinished = checkpoint.writing(checkpoint.BEST)  # left by a killed writer
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.startswith(unfinished):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)

    def is_better(self, mean: float) -> bool:
        """Returns whether a policy with this mean return replaces the best so far."""
        return mean > self.mean

    def save(
        self,
        parameters: dict[str, torch.Tensor],
        updates: int,
        agent_steps: int,
        mean: float,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Replaces the best checkpoint.

        Raises:
          OSError: it cannot be written; the one before stays.
        """
        state: dict[str, Any] = {
            "learner": {
                "parameters": {k: v.cpu().clone() for k, v in parameters.items()},
                "updates": updates,
                "agent_steps": agent_steps,
            },
            "selection": {"mean": mean},
        }
        os.makedirs(self._folder, exist_ok=True)
        checkpoint.save(self._folder, checkpoint.BEST, state, replace=True, beat=beat)
        self.mean, self.updates = mean, updates
