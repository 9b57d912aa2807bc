"""Storage of one leaf of many trajectories: whole, or each picture of a stack once.

A stack of P pictures repeats each of them in P rows. `FrameStacks` stores the first row
of a trajectory whole and one new picture for each later row. These are T + P pictures
instead of P (T + 1). What is read equals what was written, byte for byte.
"""

import numpy as np
import numpy.typing as npt

from impala_mp import specs


def layout(leaf: specs.ArraySpec) -> list[specs.ArraySpec]:
    """Returns the arrays that store one trajectory of `leaf`, rows first."""
    if leaf.stack_size == 1:
        return [leaf]
    rows, *picture, channels = leaf.shape
    return [
        specs.array_spec((*picture, channels), leaf.dtype),  # row 0
        # Newest picture of each later row, colour by colour.
        specs.array_spec((rows - 1, channels // leaf.stack_size, *picture), leaf.dtype),
        specs.array_spec((rows - 1,), np.int32),  # oldest pictures that are 0
    ]


def make(leaf: specs.ArraySpec, capacity: int) -> "Whole | FrameStacks":
    """Allocates storage of `capacity` trajectories; `leaf` is one of them."""
    return (Whole if leaf.stack_size == 1 else FrameStacks)(leaf, capacity)


class Whole:
    """Trajectories of one leaf, as they are."""

    def __init__(self, leaf: specs.ArraySpec, capacity: int) -> None:
        self.arrays = _allocate(leaf, capacity)

    def put(self, places: npt.NDArray[np.int64], rows: np.ndarray) -> None:
        """Stores trajectories [N, ...] at places [N]."""
        self.arrays[0][places] = rows

    def get(self, places: npt.NDArray[np.int64], target: np.ndarray) -> None:
        """Copies the trajectories at places [N] to `target` [N, ...].

        With fewer rows in `target`, copies the first ones.
        """
        target[...] = self.arrays[0][:, *map(slice, target.shape[1:])][places]


class FrameStacks:
    """Trajectories of a leaf whose spec has a `stack_size`, newest picture last.

    The stack of a row is that of the row before without its oldest picture, plus a new
    one. At the reset of a game the oldest pictures are 0 instead. The bytes decide, and
    not the step type: a lost life ends an episode, but its stack shifts on.
    """

    def __init__(self, leaf: specs.ArraySpec, capacity: int) -> None:
        self.arrays = _allocate(leaf, capacity)
        self._size = leaf.stack_size
        self._colours = leaf.shape[-1] // leaf.stack_size
        # Where a row without its last bytes has pictures that the row before has, too.
        is_older = np.ones(leaf.shape[1:], bool)
        is_older[..., -self._colours :] = False
        self._is_older = is_older.reshape(-1)[: -self._colours]

    def put(self, places: npt.NDArray[np.int64], rows: np.ndarray) -> None:
        """Stores trajectories [N, T+1, ..., channels] at places [N].

        Raises:
          ValueError: a row is no stack.
        """
        first, newest, blank = self.arrays
        for place, stacks in zip(places, rows, strict=True):
            blank[place] = self._num_blank(stacks)
            first[place] = stacks[0]
            for colour in range(self._colours):
                newest[place, :, colour] = stacks[1:, ..., colour - self._colours]

    def _num_blank(self, stacks: np.ndarray) -> npt.NDArray[np.int32]:
        """Returns the number of oldest pictures that are 0, [T]; 0 in most rows."""
        # Channels are last: shifted by one picture, flat rows agree in all but the
        # newest pictures. Slices of the last axis take 40 times as long to compare.
        flat, cut = stacks.reshape(len(stacks), -1), self._colours
        differs = flat[1:, :-cut] != flat[:-1, cut:]
        differs &= self._is_older
        found = np.zeros(len(differs), np.int32)
        for row in np.flatnonzero(differs.any(axis=1)).tolist():
            found[row] = self._num_blank_in(stacks[row], stacks[row + 1], row + 1)
        return found

    def _num_blank_in(self, before: np.ndarray, stack: np.ndarray, row: int) -> int:
        older, shifted = stack[..., : -self._colours], before[..., self._colours :]
        for count in range(1, self._size):
            cut = count * self._colours
            if older[..., :cut].any():
                break
            if np.array_equal(older[..., cut:], shifted[..., cut:]):
                return count
        raise ValueError(
            f"Row {row} of an observation is no stack of {self._size} pictures. Its"
            " older pictures must be those of the row before, or 0. Set stack_size=1"
            " in the environment's spec of the observation."
        )

    def get(self, places: npt.NDArray[np.int64], target: np.ndarray) -> None:
        """Copies the trajectories at places [N] to `target` [N, T+1, ..., channels].

        With fewer rows in `target`, copies the first ones.
        """
        first, newest, blank = self.arrays
        flat, cut = target.reshape(*target.shape[:2], -1), self._colours
        assert np.may_share_memory(flat, target)  # a row of a trajectory is dense
        target[:, 0] = first[places]
        for row in range(1, target.shape[1]):
            # All but the newest pictures; its places get other bytes, for a moment.
            flat[:, row, :-cut] = flat[:, row - 1, cut:]
            for colour in range(cut):
                target[:, row, ..., colour - cut] = newest[places, row - 1, colour]
            counts = blank[places, row - 1]
            for column in np.flatnonzero(counts):
                target[column, row, ..., : counts[column] * cut] = 0


def _allocate(leaf: specs.ArraySpec, capacity: int) -> list[np.ndarray]:
    return [np.zeros((capacity, *part.shape), part.dtype) for part in layout(leaf)]
