"""Learner's state in shared memory, from which its next incarnation resumes.

It is that of a checkpoint without the replay. A version is written after an update once
the learner has computed a hundred times as long as a write takes: after every update
where a write is that cheap, and after several otherwise.
"""

import array
import collections
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from impala_mp import types
from impala_mp.algorithms import cuda, optimizers
from impala_mp.config import derived
from impala_mp.storage import crash_file
from impala_mp.transport import learner_memory
from impala_mp.workers import episode_statistics, learner, publisher

_SHARE = 0.01  # of the learner's time that may go into the writes
_DURATIONS = 8  # of writes; their median counts, because pauses happen
_MAX_READS = 3  # of one version; then the error may be in the state
_DEVICE_RANDOM_BYTES = 64  # at least those of a CUDA generator
_SKIPPED_BYTES = 4  # a float32
_NUMBERS_BYTES = 2**16  # of JSON: counters, and names of the user's numbers
_GROUP_BYTES = 2**10  # of JSON: counts of a task's games


def num_bytes(config: Any, players: tuple[str, ...], parameter_bytes: int) -> int:
    """Returns the most bytes that a version takes; 0 if no process may be restarted.

    Args:
      players: of the environment's spec.
      parameter_bytes: of the network's flat buffer.
    """
    if config.runtime.mode != "processes":
        return 0
    # The meta device computes shapes, and allocates nothing.
    flat = torch.empty(parameter_bytes // 4, device="meta")
    tensors = [*optimizers.make(config.optimizer, flat).state.values()]
    delay = config.actors.policy_delay
    copies = 1 + derived.has_target_network(config) + (delay + 1 if delay else 0)
    sizes = [each.nbytes for each in tensors] + copies * [parameter_bytes]
    sizes.append(4 * len(derived.task_names(config.environment)))  # of PopArt
    sizes += [torch.get_rng_state().nbytes, _DEVICE_RANDOM_BYTES, _SKIPPED_BYTES]
    groups = 1 + len(derived.episode_suffixes(config.environment, players))
    games = 8 * episode_statistics.LAST * (2 + types.NUMBERS) + _GROUP_BYTES
    sizes += [_NUMBERS_BYTES, groups * games]
    return sum(map(learner_memory.aligned, sizes)) + 2**10


class StateCopy:
    """Copy of one learner's state in its memory: when it is written, and the resume.

    From a GPU the tensors go into pinned memory behind the update. They are written at
    the next look, so that the host never waits for work that it has just queued.
    """

    def __init__(
        self,
        memory: learner_memory.LearnerMemory,
        the_learner: learner.Learner,
        delay_line: publisher.DelayLine,
        skipped: torch.Tensor,
    ) -> None:
        """`skipped` is what the device counts of skipped updates, float32 [1]."""
        self._memory, self._learner, self._delay_line = memory, the_learner, delay_line
        self._tensors = [
            *the_learner.state_tensors.values(),
            *delay_line.tensors,
            skipped,
        ]
        self._device = the_learner.parameters.flat.device
        self._on_cpu = self._device.type == "cpu"
        self._views = [_as_bytes(each) for each in self._tensors if self._on_cpu]
        # The host's own time is that of the updates only where they are on the host.
        self._clock = time.thread_time if self._on_cpu else time.perf_counter
        self._due = -math.inf  # time of the next write
        self._durations = collections.deque[float](maxlen=_DURATIONS)
        self._pending: tuple[list[cuda.HostCopy], np.ndarray] | None = None
        self._begun_secs = 0.0  # that the pending copies took so far

    def look(self, numbers: Callable[[], dict[str, Any]]) -> None:
        """Writes the state if a write is due; called after each update.

        Args:
          numbers: returns the state beside tensors, as in a checkpoint.
        """
        start = self._clock()
        if start < self._due:
            return
        if self._pending is not None:
            copies, encoded = self._pending
            self._pending = None
            self._write(start, [_as_bytes(copy.read()) for copy in copies], encoded)
        elif self._memory.num_bytes:
            encoded = self._encoded(numbers())
            if self._on_cpu:
                random = map(_as_bytes, crash_file.random_state(self._device))
                self._write(start, [*random, *self._views], encoded)
                return
            copies = [cuda.HostCopy(tensor) for tensor in self._random_and_tensors()]
            self._pending = copies, encoded
            self._begun_secs = self._clock() - start

    def _write(
        self, start: float, pieces: list[np.ndarray], encoded: np.ndarray
    ) -> None:
        self._memory.write([*pieces, encoded])
        end = self._clock()
        self._durations.append(self._begun_secs + end - start)
        ordered = sorted(self._durations)
        self._due = end + ordered[(len(ordered) - 1) // 2] / _SHARE

    def _random_and_tensors(self) -> list[torch.Tensor]:
        return [*crash_file.random_state(self._device), *self._tensors]

    def _encoded(self, numbers: dict[str, Any]) -> np.ndarray:
        """Returns numbers as bytes: the length of JSON, JSON, and numbers of games."""
        episodes, values = _packed(numbers["episodes"])
        text = json.dumps(
            {
                **numbers,
                "episodes": episodes,
                "updates": self._learner.updates,
                "agent_steps": self._learner.agent_steps,
                "pushes": self._delay_line.pushes,
            }
        ).encode()
        text += b" " * (-len(text) % 8)
        encoded = len(text).to_bytes(8, "little") + text + values.tobytes()
        return np.frombuffer(encoded, np.uint8)

    def resume(self, newer_than: int, report: Callable[[str], None]) -> dict[str, Any]:
        """Restores the state if it is whole, and of a later update than `newer_than`.

        A state that is not used is discarded. So is one that several incarnations have
        resumed from without a write: its error may return.

        Returns:
          Numbers by name as in a checkpoint, or an empty dict.
        """
        try:
            data = self._memory.read()
            if data is not None and self._memory.num_reads > _MAX_READS:
                raise learner_memory.NotWhole(
                    f"{_MAX_READS} learners have resumed from it and ended before they"
                    " wrote another"
                )
        except learner_memory.NotWhole as error:
            self._memory.discard()
            report(
                f"The learner's state in shared memory is not used: {error}."
                f" {_explain(newer_than)}"
            )
            return {}
        if data is None:
            return {}
        numbers = self._decoded(data)
        if numbers["updates"] <= newer_than:
            self._memory.discard()
            return {}
        report(
            f"Resuming from update {numbers['updates']:,} in shared memory."
            f" {_explain(newer_than)}"
        )
        return self._restored(data, numbers)

    def _decoded(self, data: np.ndarray) -> dict[str, Any]:
        """Returns the numbers of `_encoded`."""
        sizes = (each.nbytes for each in self._random_and_tensors())
        tail = data[sum(map(learner_memory.aligned, sizes)) :].tobytes()
        end = 8 + int.from_bytes(tail[:8], "little")
        numbers: dict[str, Any] = json.loads(tail[8:end])
        values = array.array("d", tail[end:])
        numbers["episodes"] = _unpacked(numbers["episodes"], iter(values))
        return numbers

    def _restored(self, data: np.ndarray, numbers: dict[str, Any]) -> dict[str, Any]:
        """Restores tensors and counters; returns `numbers` with the random state."""
        own, start, found = self._random_and_tensors(), 0, []
        for tensor in own:
            saved = torch.from_numpy(data[start : start + tensor.nbytes].copy())
            found.append(saved.view(tensor.dtype).view(tensor.shape))
            start += learner_memory.aligned(tensor.nbytes)
        num_random = len(own) - len(self._tensors)
        crash_file.set_random_state(found[:num_random], self._device)
        for tensor, saved in zip(self._tensors, found[num_random:], strict=True):
            tensor.copy_(saved)
        self._learner.updates = numbers["updates"]
        self._learner.agent_steps = numbers["agent_steps"]
        self._delay_line.pushes = numbers["pushes"]
        restored = {**numbers, "random_state": found[0]}
        if self._delay_line.tensors:
            restored["delay_line"] = self._delay_line.state_dict()
        return restored


def _explain(update: int) -> str:
    """Returns a sentence on the newest checkpoint; -1: there is none."""
    if update < 0:
        return "There is no checkpoint."
    return f"The newest checkpoint is of update {update:,}."


def _as_bytes(tensor: torch.Tensor) -> np.ndarray:
    """Returns the memory of a contiguous tensor on the CPU, uint8."""
    return tensor.detach().view(-1).view(torch.uint8).numpy()


def _packed(episodes: dict[str, Any]) -> tuple[dict[str, Any], "array.array[float]"]:
    """Returns a game log's state with lengths in place of lists, and their values."""
    values = array.array("d")
    for games in episodes["last"]:
        values.extend(itertools.chain.from_iterable(games))
    for numbers in episodes["numbers"]:
        values.extend(itertools.chain.from_iterable(numbers.values()))
    lengths = {
        "last": [len(games) for games in episodes["last"]],
        "numbers": [
            {episodes["names"].index(name): len(each) for name, each in numbers.items()}
            for numbers in episodes["numbers"]
        ],
    }
    return {**episodes, **lengths}, values


def _unpacked(episodes: dict[str, Any], values: Iterator[float]) -> dict[str, Any]:
    """Returns the state that `_packed` took."""
    last = [
        [(next(values), int(next(values))) for _ in range(length)]
        for length in episodes["last"]
    ]
    numbers = [
        {
            episodes["names"][int(column)]: list(itertools.islice(values, length))
            for column, length in lengths.items()
        }
        for lengths in episodes["numbers"]
    ]
    return {**episodes, "last": last, "numbers": numbers}
