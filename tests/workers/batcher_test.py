"""Batches of whole slots."""

from typing import Any, NamedTuple

import numpy as np
import torch

from impala_mp import nest, specs, types
from impala_mp.algorithms import replay
from impala_mp.transport import trajectory_ring, trajectory_slot
from impala_mp.workers import batcher
from tests.support import builders


def test_batches_are_whole_slots_in_arrival_order(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    made = builders.make_batcher(parts.shared)
    assert not made.ready()
    for index in (1, 1, 0):
        parts.actors[index].fetch()
        parts.actors[index].unroll()
    slots = [parts.shared.rings.ring(1).slots[k] for k in (0, 1)]
    copies = nest.map_structure(np.array, slots)
    batch = made.take()
    assert batch.header.actor.tolist() == [1] * 6
    assert batch.header.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert not made.ready()
    assert parts.shared.rings.tails().tolist() == [0, 2]
    naive = types.Trajectory(
        *(
            nest.map_structure(lambda *x, a=axis: np.concatenate(x, a), *fields)
            for axis, *fields in zip(types.BATCH_AXIS, *copies, strict=True)
        )
    )
    host = (batch.episode_end, batch.parameter_version, batch.header)
    mine = batch.trajectory._replace(
        **dict(zip(("episode_end", "parameter_version", "header"), host, strict=True))
    )
    for leaf, twin in zip(nest.flatten(mine), nest.flatten(naive), strict=True):
        np.testing.assert_array_equal(leaf, twin)


class _QOutput(NamedTuple):
    """Output of an agent that has no policy logits."""

    q_values: Any
    action: Any
    quantiles: Any


_Q_SPEC = _QOutput(
    specs.array_spec((3,), np.float32),
    {"left": specs.array_spec((), np.int64), "right": specs.array_spec((2,), np.int8)},
    (specs.array_spec((3, 8), np.float32),),
)


def _q_output(size, seed):
    generator = np.random.default_rng(seed)
    return nest.map_structure(
        lambda leaf: torch.from_numpy(
            generator.integers(100, size=(size, *leaf.shape)).astype(leaf.dtype)
        ),
        _Q_SPEC,
    )


def test_ring_batch_and_replay_are_laid_out_by_the_agents_output_spec():
    environment = specs.EnvironmentSpec(
        specs.array_spec((4,), np.float32), specs.DiscreteSpec(3), 1
    )
    slot_spec, batch_spec = (
        specs.trajectory_spec(environment, _Q_SPEC, (), 5, size) for size in (2, 4)
    )
    rings = trajectory_ring.TrajectoryRings(slot_spec, 1, 2)
    ring = rings.ring(0)
    stored = replay.Replay(
        batch_spec, 8, 2, 2.0, builders.config().replay, np.random.SeedSequence(0)
    )
    made = batcher.Batcher(
        [ring], rings.learner_doorbells[0], batch_spec, "cpu", the_replay=stored
    )
    written = [_q_output(2, t) for t in range(5)]
    slot = trajectory_slot.of_slot(ring.slots[ring.open_index()])
    for t, output in enumerate(written):
        trajectory_slot.write_tensors(slot.outputs[t], output)
        assert slot.actions[t]["left"].tolist() == output.action["left"].tolist()
    ring.commit(0, 0)
    batch = made.take().trajectory
    assert batch.shape == (5, 4)
    assert isinstance(batch.agent_output, _QOutput)
    expected = nest.map_structure(lambda *rows: torch.stack(rows), *written)
    whole = zip(nest.flatten(batch.agent_output), nest.flatten(expected), strict=True)
    for leaf, twin in whole:
        assert torch.equal(leaf[:, :2], twin)
        for column in (2, 3):  # replayed: drawn from the two that are fresh
            assert any(torch.equal(leaf[:, column], twin[:, k]) for k in (0, 1))
    rings.close()
