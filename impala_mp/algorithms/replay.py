"""Replay buffer of whole trajectories, in the private memory of the learner.

Draws are in proportion to priority ** priority_exponent, with replacement; weights
correct for it (prioritised replay: Schaul et al. 2016, arXiv 1511.05952, section 3.4).
"""

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from impala_mp import nest, specs, types
from impala_mp.algorithms import cuda, leaf_storage, sum_tree

METRICS = (
    "replay/never_drawn_share",  # of the evicted ones
    "replay/size",  # trajectories
    "replay/priority_mean",  # of the stored ones
    "replay/age_mean_updates",  # of the draws
    "replay/weight_mean",  # of the draws
)
_KEPT = ("time_step", "agent_output", "core_state", "parameter_version", "header")
_SMALLEST = 1e-6  # added to a priority, because an error of 0 may grow later
_OVERHEAD = 48  # bytes a trajectory: two nodes of the tree or more, priority, serial
_LINK = 16  # bytes a trajectory: place and serial of its predecessor
_NONE = -2  # serial of a predecessor that was not there; no trajectory has it


class Draw(NamedTuple):
    """Stored trajectories in a batch, by column: int64 [B] each."""

    indices: npt.NDArray[np.int64]
    serials: npt.NDArray[np.int64]  # so that an index used again is noticed


def _kept(trajectory: types.Trajectory) -> list[tuple[Any, int]]:
    """Returns the leaves that are stored, and the axis of B in each."""
    axes = dict(zip(types.Trajectory._fields, types.BATCH_AXIS, strict=True))
    return [
        (leaf, axes[name])
        for name in _KEPT
        for leaf in nest.flatten(getattr(trajectory, name))
    ]


def _layout(spec: types.Trajectory) -> list[specs.ArraySpec]:
    """Returns the leaves of one trajectory; `spec` has any number."""
    return [
        specs.array_spec(
            (*leaf.shape[:axis], *leaf.shape[axis + 1 :]),
            leaf.dtype,
            stack_size=leaf.stack_size,
        )
        for leaf, axis in _kept(spec)
    ]


def trajectory_bytes(spec: types.Trajectory) -> int:
    """Returns the bytes of one stored trajectory; `spec` has any number."""
    parts = [part for leaf in _layout(spec) for part in leaf_storage.layout(leaf)]
    kept = sum(part.nbytes for part in parts)
    return kept + _OVERHEAD + (_LINK if spec.before else 0)


def _columns(trajectory: types.Trajectory, columns: slice) -> list[Any]:
    """Returns views [N, ...] of the stored leaves, trajectory first."""
    return [np.moveaxis(leaf, axis, 0)[columns] for leaf, axis in _kept(trajectory)]


class _Links:
    """Place and serial of the trajectory before each stored one.

    It is of the same environment of the same actor, and was acted directly before.
    """

    def __init__(self, capacity: int) -> None:
        self.places = np.zeros(capacity, np.int64)
        self.serials = np.full(capacity, _NONE, np.int64)
        # By actor and column: unroll, place and serial.
        self._newest: dict[tuple[int, int], tuple[int, int, int]] = {}

    def add(
        self,
        header: types.Header,
        places: sum_tree.Indices,
        serials: npt.NDArray[np.int64],
    ) -> None:
        """Links trajectories that are stored at `places`, in the order of acting."""
        words = (header.actor, header.column, header.unroll, places, serials)
        for actor, column, unroll, place, serial in zip(
            *(each.tolist() for each in words), strict=True
        ):
            last, *before = self._newest.get((actor, column), (-1, place, _NONE))
            self._newest[actor, column] = (unroll, place, serial)
            link = before if last == unroll - 1 else (place, _NONE)
            self.places[place], self.serials[place] = link


class Replay:
    """Buffer of at most `capacity` trajectories, allocated once."""

    def __init__(
        self,
        spec: types.Trajectory,
        capacity: int,
        num_replayed: int,
        num_new: float,
        settings: Any,
        seed: np.random.SeedSequence,
    ) -> None:
        """`spec` has any number of trajectories; `settings` is config.replay.

        Each batch gets `num_replayed` trajectories, and there are `num_new` new ones
        for it, on average.
        """
        self._capacity, self.num_replayed = capacity, num_replayed
        self._num_new = num_new
        self._settings = settings
        self.importance_exponent = settings.importance_exponent
        self._leaves = [leaf_storage.make(leaf, capacity) for leaf in _layout(spec)]
        self._priorities = np.zeros(capacity)  # 0: no trajectory
        self._serials = np.full(capacity, -1, np.int64)  # number of the insertion
        self._draws = np.zeros(capacity, np.int64)  # of the trajectory there
        self._tree = sum_tree.SumTree(capacity)
        leaves = iter(self._leaves)
        self._stored = spec._replace(
            **{
                name: nest.map_structure(lambda _: next(leaves), getattr(spec, name))
                for name in _KEPT
            }
        )
        self._links = _Links(capacity) if spec.before else None
        self._num_inserted = 0
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._forget_means()

    @property
    def size(self) -> int:
        """Number of trajectories that can be drawn."""
        return int(np.count_nonzero(self._priorities))

    def fill(self, batch: types.Trajectory, sample: types.Sample) -> Draw:
        """Inserts the first columns of `batch`, and fills the last ones with draws.

        Args:
          batch: arrays [T+1, B, ...]; the last num_replayed columns are overwritten.
          sample: arrays [B], overwritten.
        """
        num_fresh = len(sample.weight) - self.num_replayed
        inserted = self.insert(batch, num_fresh)
        drawn, weights = self.sample(self.num_replayed)
        targets = _columns(batch, slice(num_fresh, None))
        for leaf, target in zip(self._leaves, targets, strict=True):
            leaf.get(drawn.indices, target)
        sample.weight[:num_fresh], sample.weight[num_fresh:] = 1.0, weights
        sample.replayed[:num_fresh], sample.replayed[num_fresh:] = 0.0, 1.0
        np.add.at(self._draws, drawn.indices, 1)
        if self._links:
            self._fill_before(self._links, batch.before, drawn.indices)
        ages = (self._num_inserted - drawn.serials) / self._num_new
        self._means[:3] += (len(weights), ages.sum(), weights.sum())
        return Draw(*map(np.concatenate, zip(inserted, drawn, strict=True)))

    def _fill_before(
        self,
        links: _Links,
        before: types.Predecessor,
        indices: sum_tree.Indices,
    ) -> None:
        """Fills `before` with the predecessors of the trajectories at `indices`."""
        places = links.places[indices]
        there = self._serials[places] == links.serials[indices]
        before.there[...] = there & (self._priorities[places] > 0.0)
        for axis, targets, sources in (
            (1, before.time_step, self._stored.time_step),
            (1, before.action, self._stored.agent_output.action),
            (0, before.core_state, self._stored.core_state),
        ):
            pairs = zip(nest.flatten(targets), nest.flatten(sources), strict=True)
            for target, leaf in pairs:
                # Without the last row, which is the first of what follows.
                leaf.get(places, np.moveaxis(target, axis, 0))

    def insert(self, batch: types.Trajectory, count: int) -> Draw:
        """Stores the first `count` columns with the largest present priority."""
        places = self._places(count)
        sources = _columns(batch, slice(0, count))
        for leaf, source in zip(self._leaves, sources, strict=True):
            leaf.put(places, source)
        evicted = self._draws[places[self._serials[places] >= 0]]
        self._means[3:] += (len(evicted), int(np.count_nonzero(evicted == 0)))
        self._draws[places] = 0
        self._serials[places] = self._num_inserted + np.arange(count)
        self._num_inserted += count
        self._put(places, np.full(count, self._priorities.max() or 1.0))
        if self._links:
            header = types.Header(*(words[:count] for words in batch.header))
            self._links.add(header, places, self._serials[places])
        return Draw(places, self._serials[places])

    def _places(self, count: int) -> sum_tree.Indices:
        """Returns free places, then the oldest ones or those of lowest priority."""
        if self._settings.eviction == "fifo":
            return (self._num_inserted + np.arange(count)) % self._capacity
        used = min(self._num_inserted, self._capacity)
        free = np.arange(used, min(used + count, self._capacity))
        evicted = count - len(free)
        if not evicted:
            return free
        limit = np.partition(self._priorities[:used], evicted - 1)[evicted - 1]
        low = np.flatnonzero(self._priorities[:used] <= limit)
        order = np.lexsort((self._serials[low], self._priorities[low]))  # oldest first
        return np.concatenate([free, low[order[:evicted]]])

    def sample(self, count: int) -> tuple[Draw, npt.NDArray[np.float64]]:
        """Draws with replacement; returns the draw and importance weights [count].

        The weights are (1 / (N P(i))) ** importance_exponent, divided by the largest of
        the draw, so that N cancels. The buffer must not be empty.
        """
        indices = self._tree.find(self._generator.random(count) * self._tree.total)
        chances = self._tree[indices]
        weights = (chances / chances.min()) ** -self.importance_exponent
        return Draw(indices, self._serials[indices]), weights

    def update(self, draw: Draw, priorities: npt.NDArray[np.float32]) -> None:
        """Sets priorities [B]; a non-finite one removes its trajectory.

        Trajectories that were evicted since the draw are skipped.
        """
        there = self._serials[draw.indices] == draw.serials
        found = priorities[there].astype(np.float64)
        kept = np.isfinite(found)
        self._put(draw.indices[there], np.where(kept, found + _SMALLEST, 0.0))

    def _put(
        self, indices: sum_tree.Indices, priorities: npt.NDArray[np.float64]
    ) -> None:
        self._priorities[indices] = priorities
        weights = priorities**self._settings.priority_exponent
        self._tree.set(indices, np.where(priorities > 0.0, weights, 0.0))

    def anneal(self, progress: float) -> None:
        """Sets the importance exponent; `progress` goes from 0 to 1."""
        first = self._settings.importance_exponent
        self.importance_exponent = first + (1.0 - first) * min(1.0, progress)

    def _forget_means(self) -> None:
        # Number of draws, sums of ages and of weights; numbers of the evicted, and of
        # those of them that were never drawn.
        self._means = np.zeros(5)

    def metrics(self) -> dict[str, float]:
        """Returns the size, and means over the draws since the last call."""
        count, ages, weights, evicted, never = self._means.tolist()
        self._forget_means()
        values = (
            never / evicted if evicted else np.nan,
            self.size,
            self._priorities.sum() / max(1, self.size),
            ages / count if count else np.nan,
            weights / count if count else np.nan,
        )
        return dict(zip(METRICS, values, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Returns contents and random state: views, valid until the next change."""
        used = min(self._num_inserted, self._capacity)
        return {
            "arrays": [
                [torch.from_numpy(array[:used]) for array in leaf.arrays]
                for leaf in self._leaves
            ],
            "priorities": torch.from_numpy(self._priorities[:used]),
            "serials": torch.from_numpy(self._serials[:used]),
            "draws": torch.from_numpy(self._draws[:used]),
            "num_inserted": self._num_inserted,
            "generator": json.dumps(self._generator.bit_generator.state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of a replay with equal settings.

        Older versions stored fewer bytes a trajectory, so more of them: of these the
        newest are kept.
        """
        serials = state["serials"].numpy()
        places = np.arange(len(serials))
        kept: Any = slice(None)  # a view: the arrays may take half of the memory
        if len(serials) > self._capacity:
            kept = np.argsort(serials)[-self._capacity :]
            places = np.arange(self._capacity)
            if self._settings.eviction == "fifo":
                places = serials[kept] % self._capacity
        # Older checkpoints lack the last words of the header, which are not learned.
        for leaf, saved in zip(self._leaves, state["arrays"], strict=False):
            if isinstance(saved, torch.Tensor):  # older: each leaf is saved whole
                leaf.put(places, saved.numpy()[kept])
                continue
            for array, part in zip(leaf.arrays, saved, strict=True):
                array[places] = part.numpy()[kept]
        self._serials[places] = serials[kept]
        if "draws" in state:  # missing in older checkpoints
            self._draws[places] = state["draws"].numpy()[kept]
        self._num_inserted = state["num_inserted"]
        self._put(places, state["priorities"].numpy()[kept])
        self._generator.bit_generator.state = json.loads(state["generator"])
        # Older checkpoints do not know the environment of a trajectory.
        if self._links and len(state["arrays"]) == len(self._leaves):
            places = places[np.argsort(self._serials[places])]  # as they were acted
            words = [leaf.arrays[0][places] for leaf in self._stored.header]
            self._links.add(types.Header(*words), places, self._serials[places])


class Refresher:
    """Updates priorities from the learner's device, without waiting for it.

    On a CPU they are updated at once. On a GPU they come one update late, when the next
    update is queued, unless they are to be waited for (`at_once`).
    """

    def __init__(self, replay: Replay, at_once: bool = False) -> None:
        self._replay, self._at_once = replay, at_once
        self._pending: tuple[Draw, cuda.HostCopy] | None = None

    def add(self, draw: Draw, priorities: torch.Tensor) -> None:
        """Adds the priorities of the newest update: [B], on its device."""
        copy = cuda.HostCopy(priorities)
        self.flush()
        self._pending = (draw, copy)
        if self._at_once or not priorities.is_cuda:
            self.flush()

    def flush(self) -> None:
        """Waits for pending priorities and applies them."""
        if self._pending:
            draw, copy = self._pending
            self._replay.update(draw, copy.read().numpy())
            self._pending = None
