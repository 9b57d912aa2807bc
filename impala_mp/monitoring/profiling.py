"""Traces some iterations of a process's loop, for chrome://tracing or Perfetto."""

import os
from typing import Any

import torch

from impala_mp.storage import files

_SKIPPED = 10  # turns of warm-up


class Profile:
    """Profile of a loop that calls `turn` once per turn; written after the last."""

    def __init__(self, path: str, turns: int) -> None:
        """`turns`: number to trace; 0: none."""
        self._path, self._turns, self._left = path, turns, turns
        self._skip = _SKIPPED
        self._profiler: Any = None

    def turn(self) -> None:
        if not self._left:
            return
        if self._skip:
            self._skip -= 1
        elif self._profiler is None:
            self._start()
        else:
            self._left -= 1
            if not self._left:
                self._write(f"Profile: {self._path}")

    def _start(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_initialized():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()

    def close(self) -> None:
        """Writes what there is of a trace that the end of the loop cut short."""
        traced = self._turns - self._left
        if traced and self._left:
            message = f"Profile: {self._path}, {traced} of {self._turns} turns"
            self._write(f"{message}. The run ended.")
        elif self._left:
            print(f"{self._path} was not written: the run ended first.", flush=True)
            if self._profiler is not None:
                self._profiler.stop()
        self._profiler, self._left = None, 0

    def _write(self, message: str) -> None:
        self._profiler.stop()
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with files.replacing(self._path) as temporary:
                self._profiler.export_chrome_trace(temporary)
            print(message, flush=True)
        except (OSError, RuntimeError) as error:
            print(f"{self._path} could not be written: {error}.", flush=True)
        self._profiler = None


def of_run(folder: str, name: str, turns: int) -> Profile:
    """Returns a profile of one process, in the folder of its run."""
    return Profile(os.path.join(folder, "profiles", f"{name}.json"), turns)
