"""Rules of `config.stop` that end a training before its last agent step."""

from typing import Any

import numpy as np


class StopRules:
    """Judges the progress of a training; `reason` is not empty once it is to end.

    The return of all rules is the mean of the last 100 full games of training, which is
    unknown before as many have ended. A higher one, however little, is progress.
    """

    def __init__(self, settings: Any) -> None:
        """`settings` is config.stop."""
        self._settings = settings
        target: str = settings.target_return
        self._target = float(target) if target else np.inf
        self._best, self._best_steps = -np.inf, 0
        self.reason = ""

    def look(self, agent_steps: int, time_secs: float, return_mean: float) -> None:
        """Takes the progress, after an update or a resume.

        Args:
          agent_steps: learned since the first run in the folder.
          time_secs: of learning, over all these runs.
          return_mean: NaN before 100 games have ended.
        """
        if return_mean > self._best:
            self._best, self._best_steps = return_mean, agent_steps
        self.reason = self._why(agent_steps, time_secs, return_mean)

    def _why(self, agent_steps: int, time_secs: float, return_mean: float) -> str:
        patience, limit = self._settings.no_progress_steps, self._settings.after_secs
        if return_mean >= self._target:
            return (
                f"the mean return of the last 100 games, {return_mean:.6g}, has reached"
                f" config.stop.target_return ({self._settings.target_return}) after"
                f" {agent_steps:,} agent steps"
            )
        known = self._best > -np.inf
        if patience and known and agent_steps - self._best_steps >= patience:
            return (
                f"the mean return has not risen above {self._best:.6g} in the last"
                f" {agent_steps - self._best_steps:,} agent steps"
                f" (config.stop.no_progress_steps={patience:,})"
            )
        if limit and time_secs >= limit:
            return (
                f"{time_secs:.0f} s of training are over"
                f" (config.stop.after_secs={limit:g})"
            )
        return ""

    def state_dict(self) -> dict[str, Any]:
        return {"best": float(self._best), "best_steps": self._best_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._best_steps = state["best"], state["best_steps"]
