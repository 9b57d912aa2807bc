"""Writes the checkpoints of one learner when they are due, and prunes old ones."""

import collections
import time
from typing import Any

from impala_mp.storage import checkpoint
from impala_mp.transport import control_block

_FIRST_SECS = 10.0  # until the first checkpoint of a run, at most


class CheckpointWriter:
    """Checkpoints of one learner: when the next is due, and what was saved last."""

    def __init__(
        self,
        settings: Any,
        folder: str,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
    ) -> None:
        """`settings` are `config.checkpoint`; `row` is that of the process."""
        self._settings, self._folder = settings, folder
        self._control, self._row = control, row
        self._saved = time.monotonic()
        self._num_asked = control.num_saves  # checkpoints requested so far
        self.num_saved = 0
        self.saved_update = -1
        self.is_stale = False  # the state has changed since, without an update
        self._must_save = False
        self._saved_overrides: dict[str, float] = {}
        self._written = collections.deque[int](maxlen=settings.keep_last)

    def is_due(self, update: int) -> bool:
        """Returns whether the learner should save now, after update `update`."""
        if self._control.num_saves != self._num_asked or self._must_save:
            self._num_asked = self._control.num_saves
            self._must_save = False
            return True
        elapsed = time.monotonic() - self._saved
        interval = self._settings.interval_secs
        if not self.num_saved:
            interval = min(interval, _FIRST_SECS)
        return elapsed >= interval and self.saved_update != update  # something is new

    def require(self) -> None:
        """Makes a checkpoint due, because the state has changed without an update."""
        self.is_stale = self._must_save = True

    def begin(self) -> None:
        """Notes that a checkpoint is being written, which may fail."""
        self._saved = time.monotonic()
        self.num_saved += 1

    def write(self, update: int, state: dict[str, Any], replace: bool) -> None:
        """Writes a checkpoint of `state` and the overrides; prunes the older ones.

        `replace` writes it again if there is one of this update.

        Raises:
          OSError: it could not be written, as on a full disk. The checkpoint before
            stays the newest.
        """
        every = self._settings.keep_every
        overrides = self._control.overrides()
        checkpoint.save(
            self._folder,
            update,
            {**state, "num_saved": self.num_saved, "overrides": overrides},
            keep=bool(every) and self.num_saved % every == 0,
            replace=replace or self.is_stale or overrides != self._saved_overrides,
            beat=self._row.beat_on,
        )
        self._saved_overrides, self.is_stale = overrides, False
        self._written.append(update)
        checkpoint.prune(
            self._folder, self._settings.keep_last, self._written, self._row.beat_on
        )
        self.saved_update = update

    def load_newest(self, report: Any) -> dict[str, Any]:
        """Returns the newest sound checkpoint, or an empty dict without one."""
        state = checkpoint.load_newest(self._folder, report, self._row.beat_on) or {}
        if state:
            self.saved_update = state["learner"]["updates"]
        if "num_saved" in state:  # missing in checkpoint 0 of a warm start
            self.num_saved = state["num_saved"]
            self._saved_overrides = state.get("overrides", {})
        return state
